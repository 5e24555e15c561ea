"""Records as JSON and back, the summaries of calls, and WAV files: what is kept, and what is refused by name."""

from __future__ import annotations

import io
import struct
import wave
from typing import Any

import attrs
import pytest

from agentao_trio.messages import EventType
from agentao_trio.records import Record, RecordKind, plain
from agentao_trio.summaries import summarised
from agentao_trio.wav import read_wav

GOOD: dict[str, Any] = {"number": 1, "at": 2.0, "call_sid": "c", "kind": "gap", "data": {"packets": 3}}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"number": "1"}, "number is an integer"),
        ({"data": []}, "data an object"),
        ({"kind": "weather"}, "weather"),
        ({"at": "nan"}, "finite number of seconds"),
        ({"at": None}, "a field of the wrong type"),
        ({"raw": "?"}, "padding|base64|character"),
    ],
)
def test_what_is_no_record_is_refused_by_name(fields: dict[str, Any], words: str) -> None:
    assert Record.from_json(GOOD).as_json() == GOOD
    with pytest.raises(ValueError, match=words):
        Record.from_json(GOOD | fields)


@pytest.mark.parametrize("missing", ["at", "call_sid", "kind"])
def test_what_a_record_lacks_is_named(missing: str) -> None:
    with pytest.raises(ValueError, match=f"a record has no '{missing}'"):
        Record.from_json({name: value for name, value in GOOD.items() if name != missing})


@attrs.frozen
class Pair:
    left: object
    right: object


@pytest.mark.parametrize(
    ("value", "json"),
    [
        (EventType.CHANNEL_HOLD, "CHANNEL_HOLD"),
        (RecordKind.GAP, "gap"),
        (b"\x00\xff", "AP8="),
        ((1, [2.5, None, True]), [1, [2.5, None, True]]),
        ({1: float("inf")}, {"1": None}),
        ("a\udcff", "a\ufffd"),
        (Pair("a", (b"",)), {"left": "a", "right": [""]}),
    ],
)
def test_values_become_json_of_their_own_kind(value: object, json: object) -> None:
    assert plain(value) == json


def test_what_json_has_no_word_for_is_refused() -> None:
    with pytest.raises(TypeError, match="a record cannot hold set"):
        plain({"numbers": {1}})


# -- a call in one line ---------------------------------------------------------------------------------------------


def story(*told: tuple[str, RecordKind, dict[str, Any]]) -> list[Record]:
    return [
        Record(number=number, at=float(number), call_sid=call_sid, kind=kind, data=data)
        for number, (call_sid, kind, data) in enumerate(told, 1)
    ]


BEGAN = {"phase": "began", "direction": "outbound", "caller": "100", "callee": "200", "trunk_id": "main"}
RENAMED = {"phase": "renamed", "call_sid_before": "mine"}
ANSWER = {"verdict": "in_order", "event": {"event_type": "CHANNEL_ANSWER", "codec": "PCMU"}}


def test_a_call_that_was_renamed_is_one_call_from_its_beginning() -> None:
    calls = summarised(
        story(
            ("", RecordKind.SESSION, {"state": "up"}),
            ("mine", RecordKind.CALL, BEGAN),
            ("theirs", RecordKind.CALL, RENAMED),
            ("theirs", RecordKind.EVENT, ANSWER),
        )
    )
    [(call_sid, call)] = calls.items()
    assert (call_sid, call.call_sid, call.callee, call.status) == ("theirs", "theirs", "200", "in-progress")
    assert (call.began_at, call.seconds_to_answer, call.records) == (2.0, 2.0, 3)


def test_events_under_the_new_name_may_come_before_the_word_of_it() -> None:
    calls = summarised(
        story(
            ("mine", RecordKind.CALL, BEGAN),
            ("theirs", RecordKind.EVENT, ANSWER),
            ("theirs", RecordKind.CALL, RENAMED),
        )
    )
    [call] = calls.values()
    assert (call.callee, call.status, call.codec, call.direction) == ("200", "in-progress", "PCMU", "outbound")
    assert (call.began_at, call.answered_at, call.records) == (1.0, 2.0, 3)


def test_a_new_name_for_a_call_nobody_knew_is_a_call() -> None:
    assert list(summarised(story(("theirs", RecordKind.CALL, RENAMED)))) == ["theirs"]


def test_who_answered_and_where_it_is_recorded_is_in_the_summary() -> None:
    recording = {"status": "completed", "location": "call.wav"}
    [call] = summarised(
        story(("c", RecordKind.DETECTION, {"answered_by": "machine"}), ("c", RecordKind.RECORDING, recording))
    ).values()
    assert (call.answered_by, call.recording) == ("machine", "call.wav")


# -- WAV files ------------------------------------------------------------------------------------------------------


def wav(samples: bytes, *, channels: int = 1, width: int = 2, rate: int = 8000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(samples)
    return file.getvalue()


def test_eight_bits_are_unsigned_and_stereo_is_mixed_down() -> None:
    assert read_wav(wav(bytes([128, 255, 0]), width=1)).samples == struct.pack("<3h", 0, 127 << 8, -128 << 8)
    assert read_wav(wav(struct.pack("<4h", 100, 300, -50, -150), channels=2)).samples == struct.pack("<2h", 200, -100)
    assert read_wav(wav(struct.pack("<2i", 1 << 30, -(1 << 30)), width=4)).samples == struct.pack("<2h", 16384, -16384)


def test_what_cannot_be_played_says_what_it_is() -> None:
    with pytest.raises(ValueError, match="6 channels of 16 bits at 8000 Hz cannot be played"):
        read_wav(wav(bytes(12), channels=6))
    with pytest.raises(ValueError, match="not a PCM WAV file"):
        read_wav(b"RIFF")
