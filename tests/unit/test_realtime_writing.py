"""The task that writes to a model: whole messages, none for ever."""

from __future__ import annotations

import base64
import json
import math
from collections import deque

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from agentao_trio.errors import ConnectionLost
from agentao_trio.realtime.connection import lost
from agentao_trio.realtime.writing import WRITE_SECONDS, Pen, append_message


@attrs.define(eq=False)
class Slow:
    """A transport on which a message takes ``seconds``, and a queue of what there is to write."""

    seconds: float
    waiting: deque[bytes] = attrs.Factory(deque)
    begun: list[bytes] = attrs.Factory(list)
    whole: list[bytes] = attrs.Factory(list)
    lost: bool = False

    async def send(self, data: str | bytes) -> None:
        assert isinstance(data, bytes)
        self.begun.append(data)
        await trio.sleep(self.seconds)
        if self.lost:
            raise lost(1006, "")
        self.whole.append(data)

    async def receive(self) -> bytes:
        raise NotImplementedError

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        raise NotImplementedError

    async def take(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self.waiting:
            await trio.sleep_forever()
        return self.waiting.popleft()


async def write(slow: Slow) -> None:
    """Until it is cancelled, or one takes too long."""
    pen = Pen(slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pen.run, slow.take, lambda: None)
        await pen.watch()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("patience", [0.0, 0.5, 1.0, 1.5, 2.5])
async def test_a_message_that_has_been_begun_is_finished_and_no_other_is_begun(
    patience: float, autojump_clock: MockClock
) -> None:
    slow = Slow(1.0, deque([b"1", b"2", b"3"]))
    began = trio.current_time()
    with trio.move_on_after(patience):
        await write(slow)
    assert slow.begun == slow.whole
    assert len(slow.whole) <= math.floor(patience) + 1
    assert trio.current_time() - began <= math.floor(patience) + 1


async def test_waiting_for_something_to_write_ends_at_once(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    with trio.move_on_after(7):
        await write(Slow(0.1))
    assert trio.current_time() - began == 7


async def test_a_message_that_takes_too_long_is_given_up_to_the_second(autojump_clock: MockClock) -> None:
    slow = Slow(2.0, deque([b"1", b"2"]))
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, slow)
        await trio.sleep(3)
        slow.seconds = math.inf
        slow.waiting.append(b"stuck")
        slow.waiting.append(b"never")
    assert trio.current_time() - began == 4 + WRITE_SECONDS
    assert slow.begun == [b"1", b"2", b"stuck"]


async def test_cancelled_a_message_has_the_rest_of_its_time_and_no_more(autojump_clock: MockClock) -> None:
    slow = Slow(math.inf, deque([b"stuck"]))
    began = trio.current_time()
    with trio.move_on_after(2):
        await write(slow)
    assert trio.current_time() - began == WRITE_SECONDS
    assert slow.whole == []


async def test_a_connection_that_is_lost_is_told(autojump_clock: MockClock) -> None:
    slow = Slow(0.1, deque([b"1"]), lost=True)
    with pytest.RaisesGroup(ConnectionLost):
        await write(slow)


@given(st.binary(max_size=1000))
def test_an_append_is_the_event_it_stands_for(audio: bytes) -> None:
    event = json.loads(append_message(audio))
    assert event == {"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()}
