"""Who answers which number, and what they do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agentao_trio import messages as m
from agentao_trio.audio import Codec
from agentao_trio.gateway.farends import FAR_ENDS, find_far_end
from agentao_trio.gateway.settings import GatewaySettings
from agentao_trio.gateway.silence import Silence
from agentao_trio.gateway.sound import tone
from agentao_trio.messages import DialplanAction, ErrorCode
from tests.support.bench import (
    ANSWER,
    CREATE,
    ECHO,
    HANGUP,
    HOLD,
    NOTHING,
    RECORDING,
    RESUME,
    SILENT,
    TONE,
    Bench,
    packet,
)

# -- far ends ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "events", "cause"),
    [
        ("+15550100016", [CREATE, ANSWER, HANGUP], 16),
        ("+15550100017", [CREATE, HANGUP], 17),
        ("+15550100018", [CREATE, HANGUP], 18),
        ("+15550100019", [CREATE, HANGUP], 19),
        ("+15550100631", [CREATE, ANSWER, HANGUP], 31),
        ("+15550100721", [CREATE, HANGUP], 21),
        ("sip:ends@example.com;cause=102", [CREATE, ANSWER, HANGUP], 102),
        ("sip:+15550100017@example.com", [CREATE, HANGUP], 17),
    ],
)
def test_some_far_ends_end_the_call_themselves(to: str, events: list[int], cause: int) -> None:
    bench = Bench()
    bench.originate(to)
    bench.run(4)
    assert bench.types() == events
    assert bench.last().q850_cause == cause


def test_the_echo_returns_every_packet_in_order_untouched() -> None:
    bench = Bench()
    bench.answered(ECHO)
    sent = [bytes(range(256))[: n % 200 + 1] for n in range(100)]  # NULs, odd sizes, all bytes
    for payload in sent:
        bench.say(payload)
    bench.run(1)
    assert bench.heard() == sent
    assert [frame.sequence_number for frame in bench.frames()] == list(range(100))


def test_the_echo_keeps_each_packets_own_codec_label() -> None:
    bench = Bench()
    bench.answered(ECHO)
    for codec in ("PCM16", "PCMA", "pcmu", ""):
        bench.say(b"x", codec=codec)
    assert [frame.codec for frame in bench.frames()] == ["PCM16", "PCMA", "PCMU", "PCMU"]


def test_audio_faster_than_real_time_arrives_late_and_whole() -> None:
    bench = Bench()
    bench.answered(ECHO)
    for n in range(50):
        frame = m.AudioFrame(call_sid="call", payload=packet(n), codec="PCMU", sequence_number=n)
        bench.model.receive(bench.peer, frame, bench.now)
    bench.run(0.5)
    assert bench.heard() == [packet(n) for n in range(25)]
    bench.run(0.5)
    assert bench.heard() == [packet(n) for n in range(50)]


def test_the_tone_comes_every_20_ms_from_the_answer_on() -> None:
    bench = Bench()
    bench.answered(TONE)
    bench.run(0.2)
    assert set(bench.heard()) == {tone(Codec.PCMU)}
    assert len(bench.heard()) == 11
    assert all(len(payload) == 160 for payload in bench.heard())


def test_the_recording_is_played_once_and_the_call_stays_up() -> None:
    bench = Bench()
    bench.answered(RECORDING)
    bench.run(2)
    assert len(bench.heard()) == 5  # 0.1 s
    assert bench.types() == [CREATE, ANSWER]


def test_silence_is_sent_and_nothing_is_not() -> None:
    bench = Bench()
    bench.answered(SILENT, "silent")
    bench.answered(NOTHING, "nothing")
    bench.run(1)
    assert set(bench.heard("silent")) == {Codec.PCMU.silence}
    assert bench.frames("nothing") == []


@pytest.mark.parametrize("codec", list(Codec))
def test_a_far_end_speaks_the_codec_it_was_dialled_with(codec: Codec) -> None:
    bench = Bench()
    bench.answered(f"sip:tone@example.com;codec={codec}")
    bench.run(0.1)
    assert {(frame.codec, len(frame.payload)) for frame in bench.frames()} == {(codec.value, codec.packet_bytes)}
    assert bench.last().codec == codec


def test_the_holding_far_end_holds_and_resumes_and_lets_no_audio_through_meanwhile() -> None:
    bench = Bench()
    bench.answered("+15550100006")
    for n in range(100):
        bench.say(packet(n))
    assert bench.types() == [CREATE, ANSWER, HOLD, RESUME]
    frames = bench.frames()
    assert 70 < len(frames) < 80
    assert [frame.sequence_number for frame in frames] == list(range(len(frames)))


def test_loss_spends_sequence_numbers() -> None:
    bench = Bench()
    bench.answered("+15550100120")
    for n in range(500):
        bench.say(packet(n))
    numbers = [frame.sequence_number for frame in bench.frames()]
    assert 350 < len(numbers) < 450
    assert numbers == sorted(set(numbers))
    assert all(frame.payload == packet(frame.sequence_number) for frame in bench.frames())


def test_reordering_swaps_neighbours_and_loses_nothing() -> None:
    bench = Bench()
    bench.answered("+15550100230")
    for n in range(300):
        bench.say(packet(n))
    bench.ask(m.TerminateRequest(call_sid="call"))
    numbers = [frame.sequence_number for frame in bench.frames()]
    assert numbers != sorted(numbers)
    assert sorted(numbers) == list(range(301))
    assert all(abs(place - number) <= 1 for place, number in enumerate(numbers[:-2]))


def test_duplicates_are_the_same_frame_twice() -> None:
    bench = Bench()
    bench.answered("+15550100350")
    for n in range(200):
        bench.say(packet(n))
    numbers = [frame.sequence_number for frame in bench.frames()]
    assert sorted(set(numbers)) == list(range(200))
    assert 250 < len(numbers) < 350


def test_the_keypad_reacts_to_digits() -> None:
    bench = Bench()
    bench.answered("+15550100007")

    def press(digit: str) -> set[bytes]:
        assert bench.dialplan(DialplanAction.SEND_DTMF, f"{digit}:rfc2833:200").error_code == 0
        before = len(bench.heard())
        bench.run(0.1)
        return set(bench.heard()[before:])

    assert press("1") == {tone(Codec.PCMU)}
    assert press("0") == {Codec.PCMU.silence}
    assert len(press("2")) == 1
    assert press("3") == set()
    assert press("*") == set()
    bench.run(1)
    press("#")
    assert bench.types() == [CREATE, ANSWER, HOLD, RESUME, HANGUP]
    assert bench.last().q850_cause == 16


@pytest.mark.parametrize("code", range(1, 8))
def test_refused_numbers_name_their_error_code(code: int) -> None:
    bench = Bench()
    reply = bench.originate(f"+155501004{code:02}")
    assert (reply.error_code, reply.status) == (code, "FAILED")
    assert reply.error_message
    bench.run(5)
    assert bench.events[bench.peer] == []


def test_one_far_end_never_replies_but_is_called_and_another_is_not_even_called() -> None:
    bench = Bench()
    assert bench.originate("+15550100501", "placed") is Silence.WITHHELD
    assert bench.originate("+15550100502", "never") is Silence.WITHHELD
    bench.run(1)
    assert bench.types("placed") == [CREATE, ANSWER]
    assert bench.types("never") == []


@pytest.mark.parametrize("to", ["", "12345", "+", "+1234567890123456", "sip:", "sip: x", "tel:+1", "+1555\n", "sip:é"])
def test_malformed_destinations_are_invalid(to: str) -> None:
    assert Bench().originate(to).error_code == ErrorCode.ERR_INVALID_DESTINATION


@pytest.mark.parametrize(
    "to", ["sip:loss@x;rate=101", "sip:echo@x;rate=5", "sip:tone@x;codec=OPUS", "sip:ends@x;cause=x"]
)
def test_a_mistyped_parameter_leaves_the_far_end_unreachable(to: str) -> None:
    assert find_far_end(to, other="echo") is None


def test_strangers_are_answered_by_the_echo_unless_that_is_switched_off() -> None:
    assert Bench().originate("+442071838750").error_code == ErrorCode.SUCCESS
    strict = Bench(GatewaySettings(other_numbers=None))
    assert strict.originate("+442071838750").error_code == ErrorCode.ERR_INVALID_DESTINATION
    assert strict.originate("sip:alice@example.com").error_code == ErrorCode.ERR_INVALID_DESTINATION


def test_every_row_is_found_by_its_number_and_by_its_name() -> None:
    for row in FAR_ENDS:
        number = row.number.removesuffix("rr").removesuffix("cc")
        number += "" if number == row.number else "07"
        by_number = find_far_end(number, other=None)
        by_name = find_far_end(f"sip:{row.name}@anywhere", other=None)
        assert by_number is not None
        assert by_name is not None
        assert by_number.name == by_name.name == row.name


def test_no_two_rows_share_a_number() -> None:
    numbers = [row.number[:-2] if row.parameter else row.number for row in FAR_ENDS]
    assert len(set(numbers)) == len(numbers)
    assert not any(
        number.startswith(row.number[:-2])
        for row in FAR_ENDS
        if row.parameter
        for number in numbers
        if number != row.number[:-2]
    )


def test_the_reference_page_has_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "far-ends.md").read_text(encoding="utf-8")
    for row in FAR_ENDS:
        parameter = f";{row.parameter}=" if row.parameter else ""
        assert f"| `{row.number}` | `sip:{row.name}@…{parameter}` | {row.happens} |" in page


def test_the_reference_page_has_the_times() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "far-ends.md").read_text(encoding="utf-8")
    for names, defaults in re.findall(r"^\| (`[a-z_`, ]+`) \| ([0-9., ]+) \|", page, re.MULTILINE):
        for name, default in zip(re.findall("[a-z_]+", names), default_values(defaults), strict=True):
            assert getattr(GatewaySettings(), name) == default


def default_values(cell: str) -> list[float]:
    return [float(each) for each in cell.split(",")]
