"""What can be done to a call that is up, by its agent and by others."""

from __future__ import annotations

import pytest

from agentao_trio import messages as m
from agentao_trio.audio import Codec
from agentao_trio.gateway.settings import GatewaySettings
from agentao_trio.gateway.sound import Packet
from agentao_trio.messages import DialplanAction, ErrorCode, SuperviseMode
from tests.support.bench import (
    ANSWER,
    CREATE,
    ECHO,
    HANGUP,
    HOLD,
    NOTHING,
    RESUME,
    TONE,
    Bench,
    packet,
    wav,
)

# -- control -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "args"),
    [
        (DialplanAction.TRANSFER, ""),
        (DialplanAction.TRANSFER, "15550100001"),
        (DialplanAction.MUTE, "cable"),
        (DialplanAction.UNMUTE, "wire "),
        (DialplanAction.HOLD, "music"),
        (DialplanAction.UNHOLD, ""),
        (DialplanAction.SEND_DTMF, "12:rfc2833:200"),
        (DialplanAction.SEND_DTMF, "1:rfc2833:39"),
        (DialplanAction.SEND_DTMF, "1:rfc2833:4001"),
        (DialplanAction.SEND_DTMF, "1:inband:200"),
        (DialplanAction.SEND_DTMF, "1:rfc2833:٣٠٠"),
        (DialplanAction.SEND_DTMF, "1:info:200\n"),
        (DialplanAction.PLAYBACK, "sound.wav"),
        (DialplanAction.PLAYBACK, "/broken.wav"),
        (DialplanAction.PLAYBACK, "/a\x00.wav"),
        (DialplanAction.UNPARK_AND_BRIDGE, ""),
        (DialplanAction.UNPARK_AND_BRIDGE, "call"),
        (DialplanAction.UNPARK_AND_BRIDGE, "none"),
        (DialplanAction.SUPERVISE, ""),
        (15, ""),
        (-1, ""),
    ],
)
def test_a_wrong_argument_is_refused_and_changes_nothing(action: int, args: str) -> None:
    bench = Bench(files={"/broken.wav": b"RIFF"})
    bench.answered(ECHO)
    reply = bench.dialplan(action, args)
    assert (reply.error_code, reply.status) == (ErrorCode.ERR_VALIDATION_FAILED, "FAILED")
    assert reply.error_message.isprintable()
    bench.run(1)
    bench.say(packet(7))
    assert bench.heard() == [packet(7)]
    assert bench.types() == [CREATE, ANSWER]


@pytest.mark.parametrize("action", [a for a in DialplanAction if a not in (DialplanAction.HANGUP,)])
def test_a_call_that_only_rings_can_be_hung_up_and_nothing_else(action: DialplanAction) -> None:
    bench = Bench()
    bench.originate(ECHO)
    args = {DialplanAction.TRANSFER: ECHO, DialplanAction.SEND_DTMF: "1:info:100", DialplanAction.PLAYBACK: "/a.wav"}
    assert bench.dialplan(action, args.get(action, "")).error_code == ErrorCode.ERR_VALIDATION_FAILED
    assert bench.types() == [CREATE]
    assert bench.dialplan(DialplanAction.HANGUP).error_code == ErrorCode.SUCCESS
    assert bench.types() == [CREATE, HANGUP]


def test_hold_and_unhold_pair_whoever_asks() -> None:
    bench = Bench()
    bench.answered("+15550100006")
    assert bench.dialplan(DialplanAction.MUSIC_ON_HOLD).error_code == 0
    assert bench.dialplan(DialplanAction.HOLD).error_code == ErrorCode.ERR_VALIDATION_FAILED
    bench.run(2)  # the far end would hold now; there is nothing to be held
    assert bench.types() == [CREATE, ANSWER, HOLD]
    assert bench.dialplan(DialplanAction.UNHOLD).error_code == 0
    assert bench.dialplan(DialplanAction.UNHOLD).error_code == ErrorCode.ERR_VALIDATION_FAILED
    assert bench.types() == [CREATE, ANSWER, HOLD, RESUME]


@pytest.mark.parametrize(
    ("stop", "go_on"),
    [(DialplanAction.HOLD, DialplanAction.UNHOLD), (DialplanAction.MUTE, DialplanAction.UNMUTE)],
)
def test_what_was_not_heard_before_a_hold_or_a_mute_is_not_heard_after_it(stop: int, go_on: int) -> None:
    bench = Bench()
    bench.answered(ECHO)
    for n in range(50):
        frame = m.AudioFrame(call_sid="call", payload=packet(n), codec="PCMU", sequence_number=n)
        bench.model.receive(bench.peer, frame, bench.now)
    bench.run(0.1)
    bench.dialplan(stop)
    bench.dialplan(go_on)
    bench.say(packet(99), sequence_number=50)
    assert bench.heard() == [packet(n) for n in (0, 1, 2, 3, 4, 99)]


def test_muting_keeps_the_agent_from_the_far_end_and_not_the_other_way_round() -> None:
    bench = Bench()
    bench.answered(ECHO, "echo")
    bench.answered(TONE, "tone")
    for call_sid in ("echo", "tone"):
        bench.dialplan(DialplanAction.MUTE, "wire", call_sid)
    before = len(bench.heard("tone"))
    bench.say(packet(1), "echo")
    assert bench.heard("echo") == []
    assert len(bench.heard("tone")) == before + 1
    bench.dialplan(DialplanAction.UNMUTE, "wire", "echo")
    bench.say(packet(2), "echo")
    assert bench.heard("echo") == [packet(2)]


@pytest.mark.parametrize(
    ("to", "ends"), [("+15550100001", True), ("sip:alice@example.com", True), ("+15550100017", False)]
)
def test_a_transfer_ends_the_call_if_somebody_answers_there(to: str, ends: bool) -> None:
    bench = Bench()
    bench.answered(ECHO)
    assert bench.dialplan(DialplanAction.TRANSFER, to).status == "REFERRED"
    assert bench.dialplan(DialplanAction.TRANSFER, to).error_code == ErrorCode.ERR_VALIDATION_FAILED
    bench.run(1)
    assert (bench.types()[-1] == HANGUP) is ends
    if ends:
        assert bench.last().q850_cause == 16


def test_digits_are_recorded() -> None:
    bench = Bench(GatewaySettings(inband_dtmf=True))
    bench.answered(ECHO)
    for argument in ("1:rfc2833:200", "A:info:40", "#:inband:4000", "*:info:100"):
        assert bench.dialplan(DialplanAction.SEND_DTMF, argument).error_code == ErrorCode.SUCCESS
    assert bench.model.calls["call"].digits == "1A#*"


def test_a_playback_replaces_the_agent_until_it_is_over_or_interrupted() -> None:
    bench = Bench(files={"/hello.wav": wav(0.2)})
    bench.answered(ECHO)
    assert bench.dialplan(DialplanAction.PLAYBACK, "/hello.wav").error_code == 0
    for _ in range(12):
        bench.say(packet(1))
    assert len(bench.heard()) == 12
    assert bench.heard()[:10] == [bench.heard()[0]] * 10
    assert bench.heard()[10:] == [packet(1)] * 2

    bench.dialplan(DialplanAction.PLAYBACK, "/hello.wav")
    bench.run(0.1)
    before = len(bench.heard())
    assert bench.ask(m.BargeRequest(call_sid="call")) == m.Empty()
    bench.run(1)
    assert len(bench.heard()) == before


def test_barge_clears_what_has_not_been_heard() -> None:
    bench = Bench()
    bench.answered(ECHO)
    for n in range(50):
        frame = m.AudioFrame(call_sid="call", payload=packet(n), codec="PCMU", sequence_number=n)
        bench.model.receive(bench.peer, frame, bench.now)
    bench.run(0.1)
    assert bench.ask(m.BargeRequest(call_sid="call")) == m.Empty()
    bench.run(1)
    assert bench.heard() == [packet(n) for n in range(5)]


class Talker:
    """A far end that speaks from the answer on, and notes in which slots it hears something."""

    def __init__(self) -> None:
        self.hears: list[bool] = []

    def answered(self, call_sid: str, codec: Codec) -> None:
        pass

    def hear(self, heard: Packet | None) -> None:
        self.hears.append(heard is not None)

    def say(self) -> bytes:
        return packet(1)

    def ended(self, cause: int) -> None:
        pass


@pytest.mark.parametrize(("auto_barge_in", "slots"), [(True, 11), (False, 50)])
def test_the_far_end_interrupts_a_playback_by_speaking_if_the_call_was_placed_so(
    auto_barge_in: bool, slots: int
) -> None:
    bench = Bench(files={"/long.wav": wav(10)})
    bench.model.handsets[NOTHING] = talker = Talker()
    bench.answered(
        NOTHING,
        default_app=DialplanAction.PLAYBACK,
        default_app_args="/long.wav",
        auto_barge_in=auto_barge_in,
        barge_in_patience_ms=200,
    )
    bench.run(1)
    assert talker.hears[:50] == [True] * slots + [False] * (50 - slots)


def test_a_bridge_lets_both_agents_hear_both_far_ends() -> None:
    bench = Bench()
    bench.answered(NOTHING, "one")
    bench.answered(TONE, "two")
    assert bench.frames("one") == []
    assert bench.dialplan(DialplanAction.UNPARK_AND_BRIDGE, "two", "one").status == "BRIDGED"
    bench.run(0.2)
    assert len(bench.heard("one")) >= 9
    assert len(set(bench.heard("one")[1:])) == 1
    bench.ask(m.TerminateRequest(call_sid="two"))
    before = len(bench.heard("one"))
    bench.run(1)
    assert len(bench.heard("one")) <= before + 1
    assert bench.types("one") == [CREATE, ANSWER]


# -- audio from the agent ----------------------------------------------------------------------------------------------


def test_uplink_audio_that_cannot_be_used_is_counted_and_the_call_goes_on() -> None:
    bench = Bench(GatewaySettings(max_uplink_packets=3))
    bench.answered(ECHO)
    bench.say(packet(0))
    bench.say(packet(1), codec="OPUS")
    bench.say(bytes(70_000))
    bench.say(packet(2), sequence_number=0)  # a duplicate
    bench.say(b"")
    bench.say(packet(3))
    assert bench.heard() == [packet(0), packet(3)]
    for n in range(5):
        frame = m.AudioFrame(call_sid="call", payload=packet(n), codec="PCMU", sequence_number=100 + n)
        bench.model.receive(bench.peer, frame, bench.now)
    bench.run(1)
    assert bench.heard()[2:] == [packet(0), packet(1), packet(2)]
    bench.ask(m.TerminateRequest(call_sid="call"))
    assert bench.model.statistics().packets_refused == 5


def test_audio_after_the_agents_end_of_stream_is_ignored_and_the_call_stays_up() -> None:
    bench = Bench()
    bench.answered(ECHO)
    bench.say(packet(0))
    bench.say(packet(1), end_of_stream=True)
    bench.say(packet(2))
    bench.run(1)
    assert bench.heard() == [packet(0), packet(1)]
    assert bench.types() == [CREATE, ANSWER]
    bench.ask(m.TerminateRequest(call_sid="call"))
    assert bench.model.statistics().packets_after_eos == 1


def test_a_silent_call_gives_its_slots_back_and_gets_them_again() -> None:
    bench = Bench()
    bench.answered(ECHO)
    bench.run(2)
    assert not bench.model.calls["call"].has_slots
    bench.say(packet(1))
    assert bench.heard() == [packet(1)]


# -- supervision -------------------------------------------------------------------------------------------------------


def test_a_monitor_hears_both_sides_and_is_heard_by_neither() -> None:
    bench = Bench()
    bench.answered(NOTHING)
    monitor = bench.connect()
    assert bench.ask(m.SuperviseSubscribeRequest(call_sid="call"), monitor).status == "SUBSCRIBED"
    bench.say(packet(5))
    bench.say(packet(9), peer=monitor)
    bench.run(0.1)
    assert bench.heard(peer=monitor) == [packet(5)]
    assert bench.heard() == []
    bench.ask(m.TerminateRequest(call_sid="call"))
    assert bench.frames(peer=monitor)[-1].end_of_stream
    assert bench.events[monitor] == []


@pytest.mark.parametrize(
    ("mode", "agent_hears", "caller_hears"),
    [
        (SuperviseMode.WHISPER_AGENT, True, False),
        (SuperviseMode.WHISPER_CALLER, False, True),
        (SuperviseMode.BARGE, True, True),
        (SuperviseMode.AGENTIC_MONITOR, False, False),
    ],
)
def test_a_supervisor_is_heard_by_those_its_mode_names(mode: int, agent_hears: bool, caller_hears: bool) -> None:
    bench = Bench()
    bench.answered(NOTHING, "quiet")
    bench.answered(ECHO, "echo")  # what the caller hears comes back to the agent
    supervisor = bench.connect()
    for call_sid in ("quiet", "echo"):
        bench.ask(m.SuperviseSubscribeRequest(call_sid=call_sid, mode=mode), supervisor)
        bench.say(packet(0x30), call_sid, supervisor)
        bench.run(0.1)
    assert bool(bench.heard("quiet")) is agent_hears
    assert bool(bench.heard("echo")) is (agent_hears or caller_hears)


def test_supervision_is_refused_politely() -> None:
    bench = Bench(GatewaySettings(max_supervisors=1))
    bench.answered(ECHO)
    for request in (m.SuperviseSubscribeRequest(call_sid="none"), m.SuperviseSubscribeRequest(call_sid="call", mode=9)):
        reply = bench.ask(request, bench.connect())
        assert (reply.status, bool(reply.error_message)) == ("FAILED", True)
    first = bench.connect()
    for _ in range(2):  # asking again changes the mode
        assert bench.ask(m.SuperviseSubscribeRequest(call_sid="call"), first).status == "SUBSCRIBED"
    assert bench.ask(m.SuperviseSubscribeRequest(call_sid="call"), bench.connect()).status == "FAILED"
    bench.disconnect(first)
    assert bench.ask(m.SuperviseSubscribeRequest(call_sid="call"), bench.connect()).status == "SUBSCRIBED"


def test_the_agent_itself_may_go_silent_by_monitoring_its_own_call() -> None:
    bench = Bench()
    bench.answered(ECHO)
    bench.ask(m.SuperviseSubscribeRequest(call_sid="call", mode=SuperviseMode.MONITOR))
    bench.say(packet(1))
    bench.ask(m.SuperviseSubscribeRequest(call_sid="call", mode=SuperviseMode.BARGE))
    bench.say(packet(2))
    assert bench.heard() == [packet(2)]


def test_media_over_webtransport_is_declined() -> None:
    bench = Bench()
    bench.answered(ECHO)
    reply = bench.ask(m.AllocateWtRequest(call_sid="call"))
    assert (reply.error_code, reply.status) == (ErrorCode.ERR_VALIDATION_FAILED, "FAILED")
