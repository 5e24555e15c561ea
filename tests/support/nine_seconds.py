"""A call of nine seconds between a caller and a scripted model, with an interruption, in virtual time.

``python -m tests.support.nine_seconds 1000`` has it a thousand times, and tells how many different calls that were.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import sys
from collections import Counter
from typing import Any

import attrs
import trio

from agentao_trio import Codec, open_session
from agentao_trio.audio import from_pcm16
from agentao_trio.realtime.bridge import BridgeStatistics, bridge
from agentao_trio.realtime.configuration import ServerVad, SessionConfig, Transcription
from agentao_trio.realtime.script import Script, ToolCall, Turn
from agentao_trio.realtime.session import open_realtime
from agentao_trio.realtime.simulator import simulated
from agentao_trio.realtime.tools import hangup
from agentao_trio.records import Record, RecordKind
from agentao_trio.testing import open_simulated_gateway
from tests.support.bridged import NUMBER
from tests.support.measure import deterministic_run

__all__ = ["NineSeconds", "nine_seconds"]

_SPEECH = importlib.resources.files("agentao_trio") / "assets" / "speech.wav"
#: What there is of the caller's speech: 1.2 s, from where somebody speaks.
_SENTENCE = slice(1_000, 10_600)

VAD = ServerVad(silence_duration_ms=300)
SCRIPT = Script(
    turns=(
        Turn(text="Good morning, this is the garden shop. How can I help you today? We have roses.", think_seconds=0.2),
        Turn(
            text="One moment.",
            tool=ToolCall(name="look_up", arguments='{"number": 4711}'),
            heard="Where is my order, please?",
        ),
        Turn(text="It arrives tomorrow, between nine and noon. Goodbye, dear.", tool=ToolCall(name="hangup")),
    ),
)


@attrs.frozen(kw_only=True)
class NineSeconds:
    """What became of the call."""

    seconds: float
    records: tuple[Record, ...]
    statistics: BridgeStatistics
    #: Seconds from the server's word that the caller speaks to the end of the last packet before the silence.
    barge_in_silence: float
    #: When the caller heard something, in seconds since the answer.
    heard_at: tuple[float, ...]
    #: Hangups and the like that were asked of the gateway.
    commands: tuple[str, ...]

    def told(self, kind: RecordKind) -> list[Any]:
        """The data of the records of a kind."""
        return [record.data for record in self.records if record.kind is kind]

    def digest(self) -> str:
        """One word for all that was told and heard, with its times, without the names that are random."""
        began = self.records[0].at
        told = [
            (record.kind.value, round(record.at - began, 4), record.data)
            for record in self.records
            if record.kind not in (RecordKind.SESSION, RecordKind.COMMAND, RecordKind.EVENT, RecordKind.CALL)
        ]
        return hashlib.sha256(json.dumps([told, self.heard_at], default=dict).encode()).hexdigest()


async def _call() -> NineSeconds:
    records: list[Record] = []
    heard: list[float] = []
    first_record_at = 0.0

    def record(each: Record) -> None:
        nonlocal first_record_at
        first_record_at = first_record_at or trio.current_time()
        records.append(each)

    async with open_simulated_gateway() as gateway:
        caller = gateway.pick_up(NUMBER)
        hear = caller.hear

        def listen(packet: Any) -> None:
            if packet is not None:
                heard.append(trio.current_time())
            hear(packet)

        caller.hear = listen  # type: ignore[method-assign]
        pcm = _SPEECH.read_bytes()[44:]

        async def look_up(number: int) -> str:
            """Look up an order."""
            await trio.sleep(0.4)
            return f"{number} is on its way"

        async def talk() -> None:
            await caller.is_answered()
            await trio.sleep(2.5)
            await caller.says(_as_pcmu(pcm)[_SENTENCE])  # into the greeting

        async with (
            open_session(gateway.endpoint, **gateway.options()) as session,
            trio.open_nursery() as nursery,
        ):
            session.hub.attach(record)
            nursery.start_soon(talk)
            async with await session.originate(NUMBER, trunk_id="main") as call:
                await call.wait_answered()
                answered = trio.current_time()
                async with (
                    open_realtime(
                        "ws://scripted",
                        config=SessionConfig(turn_detection=VAD, transcription=Transcription(model="any")),
                        connect=simulated(SCRIPT),
                    ) as model,
                    bridge(call, model, tools=[look_up, hangup()], greet=True) as conversation,
                ):
                    ending = await conversation.wait_ended()
                statistics = conversation.statistics()
    interrupted_at = next(
        record.at - records[0].at
        for record in records
        if record.kind is RecordKind.SPEECH and record.data["speaker"] == "user"
    )
    barge_in = first_record_at + interrupted_at
    return NineSeconds(
        seconds=ending.seconds,
        records=tuple(records),
        statistics=statistics,
        barge_in_silence=max(at for at in heard if at <= barge_in + 0.5) + 0.02 - barge_in,
        heard_at=tuple(round(at - answered, 4) for at in heard),
        commands=tuple(r.data["method"] for r in records if r.kind is RecordKind.COMMAND and r.data["phase"] == "sent"),
    )


def _as_pcmu(pcm: bytes) -> bytes:
    return from_pcm16(pcm, Codec.PCMU)


def nine_seconds(seed: int = 1) -> NineSeconds:
    """Have the call, with everything that is random drawn from ``seed``."""
    call: NineSeconds = deterministic_run(_call, seed=seed)
    return call


def main() -> None:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    calls = Counter(nine_seconds(seed=1).digest() for _ in range(times))
    print(f"{times} calls, {len(calls)} different")  # noqa: T201 - that is what it is for
    raise SystemExit(len(calls) != 1)


if __name__ == "__main__":
    main()
