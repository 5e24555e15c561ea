"""What waits to be sent: control events are kept, audio ages."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from agentao_trio.realtime.outbox import CONTROL_BOUND, Audio, Outbox

PIECE = 20 * 8


def drain(outbox: Outbox[str], append_ms: int = 20) -> list[str | bytes]:
    async def main() -> None:
        for _ in range(outbox.waiting_ms // append_ms + outbox.controls):
            entry = await outbox.take()
            found.append(entry.data if isinstance(entry, Audio) else entry)

    found: list[str | bytes] = []
    trio.run(main)
    return found


def test_audio_is_cut_into_pieces_and_a_control_event_comes_behind_all_of_it() -> None:
    outbox: Outbox[str] = Outbox(bytes_per_ms=8, bound_ms=200, append_ms=20)
    outbox.add_audio(b"a" * (PIECE + 10))
    outbox.add("commit")
    outbox.add_audio(b"b" * PIECE)
    assert drain(outbox) == [b"a" * PIECE, b"a" * 10, "commit", b"b" * PIECE]


def test_the_oldest_audio_is_dropped_and_counted_wherever_it_stands() -> None:
    outbox: Outbox[str] = Outbox(bytes_per_ms=8, bound_ms=40, append_ms=20)
    outbox.add("first")
    for letter in b"abcd":
        outbox.add_audio(bytes([letter]) * PIECE)
    assert (outbox.waiting_ms, outbox.dropped_ms) == (40, 40)
    assert drain(outbox) == ["first", b"c" * PIECE, b"d" * PIECE]


@given(st.lists(st.one_of(st.integers(0, 700), st.text(max_size=2))), st.sampled_from([20, 40]))
def test_nothing_but_the_oldest_audio_is_ever_lost(entries: list[int | str], append_ms: int) -> None:
    outbox: Outbox[str] = Outbox(bytes_per_ms=8, bound_ms=120, append_ms=append_ms)
    for entry in entries:
        if isinstance(entry, str):
            outbox.add(entry)
        else:
            outbox.add_audio(b"x" * entry)
        assert outbox.waiting_ms <= 120
    assert [each for each in drain(outbox, append_ms) if isinstance(each, str)] == [
        each for each in entries if isinstance(each, str)
    ]


async def test_control_events_are_bounded_and_a_task_can_wait_for_room() -> None:
    outbox: Outbox[str] = Outbox(bytes_per_ms=8, bound_ms=40, append_ms=20)
    for number in range(CONTROL_BOUND):
        outbox.add(str(number))
    with pytest.raises(trio.WouldBlock):
        outbox.add("one too many")
    with trio.move_on_after(0) as scope:
        await outbox.wait_for_room()
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.wait_for_room)
        assert await outbox.take() == "0"
    outbox.add("now there is room")


async def test_taking_can_be_cancelled_and_loses_nothing() -> None:
    outbox: Outbox[str] = Outbox(bytes_per_ms=8, bound_ms=40, append_ms=20)
    outbox.add("kept")
    with trio.CancelScope() as scope:
        scope.cancel()
        await outbox.take()
    assert await outbox.take() == "kept"
    await outbox.wait_empty()


def test_a_lost_connection_takes_everything_with_it_and_a_planned_end_leaves_the_audio() -> None:
    outbox: Outbox[str] = Outbox(bytes_per_ms=8, bound_ms=100, append_ms=20)
    outbox.add_audio(b"a" * PIECE)
    outbox.add("told to the old one")
    outbox.drop_controls()
    assert (outbox.waiting_ms, outbox.controls) == (20, 0)
    outbox.drop_all()
    assert (outbox.waiting_ms, outbox.dropped_ms) == (0, 20)


def test_another_format_has_other_pieces() -> None:
    outbox: Outbox[str] = Outbox(bytes_per_ms=8, bound_ms=100, append_ms=20)
    outbox.add_audio(b"a" * 10)
    outbox.use(48)
    outbox.add_audio(b"b" * 20 * 48)
    assert drain(outbox) == [b"b" * 20 * 48]
