"""The ``sessions`` of streams.json: many streams arriving woven together, judged call by call."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from agentao_trio import messages
from agentao_trio.audio import SequenceTracker
from agentao_trio.callstate import Verdict
from agentao_trio.errors import RemoteProtocolError
from agentao_trio.events import Ingest
from agentao_trio.messages import AudioFrame, MethodId
from agentao_trio.wire import Frame, FrameDecoder

GOLDEN = json.loads((Path(__file__).parent / "streams.json").read_text(encoding="utf-8"))


def content(stream: dict[str, Any]) -> bytes:
    """The bytes of a stream: one hex string, or several parts of which some are repeated."""
    if "data_hex" in stream:
        return bytes.fromhex(stream["data_hex"])
    parts = stream["data_parts"]
    return b"".join(
        bytes.fromhex(part) if isinstance(part, str) else bytes.fromhex(part["repeat"][0]) * part["repeat"][1]
        for part in parts
    )


STREAMS = {stream["id"]: content(stream) for stream in GOLDEN["streams"]}


class Tracker:
    """What the session does with inbound frames, without the session: route by method and by call."""

    def __init__(self) -> None:
        self.frames = 0
        self.ingest = Ingest()
        self.audio: defaultdict[str, SequenceTracker] = defaultdict(SequenceTracker)
        self.events: defaultdict[str, list[int]] = defaultdict(list)
        self.verdicts: defaultdict[str, list[Verdict]] = defaultdict(list)

    def frame(self, frame: Frame) -> None:
        self.frames += 1
        method = messages.method_of(frame.method_id)
        try:
            if method is MethodId.AudioFrame:
                audio = messages.decode(AudioFrame, frame.body)
                self.audio[audio.call_sid].feed(audio.sequence_number, audio.end_of_stream)
            elif method is MethodId.StreamEvents:
                record = self.ingest.event(frame.body, at=0.0)
                self.verdicts[record.call_sid].append(record.verdict)
                if record.verdict not in (Verdict.DUPLICATE, Verdict.UNKNOWN):
                    self.events[record.call_sid].append(record.event.event_type)
        except RemoteProtocolError:
            pass  # a bad body is reported and reading goes on (PROTOCOL section 4.3)

    def call(self, call_sid: str) -> dict[str, Any]:
        audio, verdicts = self.audio[call_sid], self.verdicts[call_sid]
        return {
            "events": self.events[call_sid],
            "violations": verdicts.count(Verdict.GAP) + verdicts.count(Verdict.VIOLATION),
            "dup_events": verdicts.count(Verdict.DUPLICATE),
            "unknown_events": verdicts.count(Verdict.UNKNOWN),
            "audio": audio.received,
            "lost": audio.lost,
            "late_or_dup": audio.late_or_duplicate,
            "after_eos": audio.after_eos,
            "eos": audio.ended,
        }


@pytest.mark.parametrize("session", GOLDEN["sessions"], ids=lambda session: session["name"])
def test_every_call_of_a_session_is_tracked_as_published(session: dict[str, Any]) -> None:
    tracker = Tracker()
    decoders: defaultdict[str, FrameDecoder] = defaultdict(FrameDecoder)
    offsets: defaultdict[str, int] = defaultdict(int)
    for stream_id, size in session["arrivals"]:
        start = offsets[stream_id]
        offsets[stream_id] = start + size
        decoder = decoders[stream_id]
        if decoder.error is None:  # otherwise the stream has been abandoned; the others go on
            for frame in decoder.feed(STREAMS[stream_id][start : start + size]):
                tracker.frame(frame)
    expected = session["expect"]
    assert tracker.frames == expected["frames"]
    assert set(tracker.audio) | set(tracker.verdicts) == set(expected["calls"])
    assert {call_sid: tracker.call(call_sid) for call_sid in expected["calls"]} == expected["calls"]
