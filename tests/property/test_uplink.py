"""What an uplink keeps for its slots in one piece, held against a list of packets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import attrs
import trio
from hypothesis import given
from hypothesis import strategies as st

from agentao_trio import messages
from agentao_trio.audio import Codec
from agentao_trio.media import Mark, Passage, Uplink
from agentao_trio.pacing import PacketClock, Slot
from agentao_trio.wire import FrameDecoder

PACKET, MOST = 160, 25

#: So many bytes are said, as part of that passage or of none; or what is done ``[0]`` times.
Step: TypeAlias = tuple[int, int | None] | str
STEPS = st.lists(
    st.tuples(st.integers(0, 1000) | st.sampled_from([PACKET, 5 * PACKET]), st.sampled_from([None, 0, 1]))
    | st.sampled_from(["slot", "slot", "slot", "flush", "clear", "mark"]),
    max_size=60,
)


class ByHand(PacketClock):
    """A clock of one member, whose slots come when the test says so."""

    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.on_slot: Callable[[float], None] = lambda deadline: None

    def join(self, on_slot: Callable[[float], None]) -> Slot:
        self.on_slot = on_slot
        return super().join(on_slot)


class Stream:
    backlog = unsent = 0

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self._decoder = FrameDecoder()

    def write(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            self.payloads.append(messages.decode(messages.AudioFrame, frame.body).payload)

    def finish(self) -> None:
        raise AssertionError("nobody ended the call")


@attrs.define
class Naive:
    """The same with a list of packets."""

    rest: bytes = b""
    waiting: list[tuple[bytes, int | None]] = attrs.field(factory=list)
    sent: list[bytes] = attrs.field(factory=list)
    accepted: int = 0
    cleared: int = 0
    passages: list[list[int]] = attrs.field(factory=lambda: [[0, 0, 0], [0, 0, 0]])  # queued, sent, dropped
    marks: list[tuple[int, Mark]] = attrs.field(factory=list)
    passed: list[tuple[Mark, bool]] = attrs.field(factory=list)

    def say(self, data: bytes, passage: int | None) -> None:
        self.rest += data
        while len(self.rest) >= PACKET:
            self.put(self.rest[:PACKET], passage)
            self.rest = self.rest[PACKET:]

    def put(self, packet: bytes, passage: int | None) -> None:
        self.waiting.append((packet, passage))
        self.accepted += 1
        if passage is not None:
            self.passages[passage][0] += 1

    def slot(self) -> None:
        if self.waiting:
            packet, passage = self.waiting.pop(0)
            self.sent.append(packet)
            if passage is not None:
                self.passages[passage][1] += 1
            self.settle(True)

    def flush(self) -> None:
        if self.rest:
            self.put(self.rest.ljust(PACKET, b"\xff"), None)
            self.rest = b""

    def clear(self) -> None:
        self.cleared += len(self.waiting) + bool(self.rest)
        for _, passage in self.waiting:
            if passage is not None:
                self.passages[passage][2] += 1
        self.waiting.clear()
        self.rest = b""
        self.settle(False)

    def settle(self, passed: bool) -> None:
        gone = self.accepted - len(self.waiting)
        self.passed += [(mark, passed) for position, mark in self.marks if position <= gone]
        self.marks = [(position, mark) for position, mark in self.marks if position > gone]


@given(STEPS)
def test_an_uplink_does_as_a_list_of_packets(steps: list[Step]) -> None:
    async def main() -> None:
        clock, stream, naive, said = ByHand(), Stream(), Naive(), 0
        uplink, passages = Uplink("call", clock, lambda: stream), (Passage(), Passage())
        for step in steps:
            if isinstance(step, tuple):
                size, passage = step
                if len(naive.waiting) + (len(naive.rest) + size) // PACKET > MOST:
                    continue  # it would wait for room
                data = bytes((said + index) % 251 for index in range(size))
                said += size
                await uplink.send(data, Codec.PCMU, passage=None if passage is None else passages[passage])
                naive.say(data, passage)
            elif step == "slot":
                clock.on_slot(0.0)
                naive.slot()
            elif step == "flush" and len(naive.waiting) < MOST:
                uplink.flush()
                naive.flush()
            elif step == "clear":
                was = naive.cleared
                naive.clear()
                assert uplink.clear() == naive.cleared - was
            elif step == "mark":
                naive.marks.append((naive.accepted, uplink.mark("here")))
                naive.settle(True)
            assert uplink.queued == len(naive.waiting)
            assert uplink.counters.packets_cleared == naive.cleared
            assert stream.payloads == naive.sent
            assert [[each.queued, each.sent, each.dropped] for each in passages] == naive.passages
            assert [mark.passed for mark, _ in naive.passed] == [passed for _, passed in naive.passed]
            assert all(mark.passed is None for _, mark in naive.marks)

    trio.run(main)
