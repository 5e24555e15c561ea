"""One call's audio in virtual time, against streams made by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from agentao_trio import messages
from agentao_trio.audio import Codec
from agentao_trio.audio_frames import AudioFields
from agentao_trio.backlog import BACKLOG_AGE
from agentao_trio.errors import StreamReset
from agentao_trio.media import BACKLOG_SECONDS, Downlink, Uplink
from agentao_trio.pacing import PacketClock
from agentao_trio.wire import FrameDecoder

SECOND = 8000  # bytes of PCMU
PACKET = 160


class Stream:
    """A stream that remembers what was written and when; it can be full, or reset by the peer."""

    def __init__(self) -> None:
        self.decoder = FrameDecoder()
        self.frames: list[messages.AudioFrame] = []
        self.times: list[float] = []
        self.finished = False
        self.backlog = self.unsent = 0
        self.error: Exception | None = None

    def write(self, data: bytes) -> None:
        if self.error is not None:
            raise self.error
        for frame in self.decoder.feed(data):
            self.frames.append(messages.decode(messages.AudioFrame, frame.body))
            self.times.append(trio.current_time())

    def finish(self) -> None:
        self.finished = True

    @property
    def audio(self) -> bytes:
        return b"".join(frame.payload for frame in self.frames)


class Wire:
    """Gives streams while ``up``; keeps all it gave."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.up = True
        self.flushes = 0

    def open(self) -> Stream | None:
        if not self.up:
            return None
        self.streams.append(Stream())
        return self.streams[-1]

    def flush(self) -> None:
        self.flushes += 1


@asynccontextmanager
async def uplink_on(wire: Wire) -> AsyncIterator[Uplink]:
    """An uplink with its clock and its writer running; leaving cancels the writer, as the end of a call does."""
    clock = PacketClock(wire.flush)
    async with trio.open_nursery() as nursery:
        uplink = Uplink("call-1", clock, wire.open)
        nursery.start_soon(clock.run)
        nursery.start_soon(uplink.run)
        yield uplink
        nursery.cancel_scope.cancel()


def speech(seconds: float) -> bytes:
    return bytes(i % 251 for i in range(round(seconds * SECOND)))


async def test_audio_goes_out_in_20_ms_packets_on_an_absolute_grid(autojump_clock: MockClock) -> None:
    wire = Wire()
    async with uplink_on(wire) as uplink:
        await uplink.send(speech(2), Codec.PCMU)
        await uplink.finish()
    [stream] = wire.streams
    assert stream.audio == speech(2)
    assert [frame.sequence_number for frame in stream.frames] == list(range(101))
    assert [frame.end_of_stream for frame in stream.frames] == [False] * 100 + [True]
    steps = {round(later - earlier, 6) for earlier, later in zip(stream.times[:100], stream.times[1:100], strict=False)}
    assert steps == {0.02}
    assert {frame.call_sid for frame in stream.frames} == {"call-1"}
    assert {frame.codec for frame in stream.frames} == {"PCMU"}
    assert stream.finished


@pytest.mark.parametrize("chunk", [1, 159, 160, 161, 1000])
async def test_any_chunk_size_makes_the_same_packets(chunk: int, autojump_clock: MockClock) -> None:
    wire, data = Wire(), speech(0.3) + b"rest"
    async with uplink_on(wire) as uplink:
        for start in range(0, len(data), chunk):
            await uplink.send(data[start : start + chunk], Codec.PCMU)
        await uplink.finish()
    [stream] = wire.streams
    assert stream.audio.startswith(data)
    assert {len(frame.payload) for frame in stream.frames[:-1]} == {PACKET}
    assert len(stream.audio) == 16 * PACKET
    assert stream.audio[len(data) :] == Codec.PCMU.silence[: PACKET - 4]


async def test_a_chunk_that_is_written_over_goes_out_as_it_was(autojump_clock: MockClock) -> None:
    wire, chunk = Wire(), bytearray(speech(0.1))
    async with uplink_on(wire) as uplink:
        await uplink.send(chunk, Codec.PCMU)  # type: ignore[arg-type]  # taken, if not promised
        chunk[:] = bytes(len(chunk))
        await uplink.wait_played()
    assert wire.streams[0].audio.startswith(speech(0.1))


async def test_sending_waits_while_half_a_second_is_queued(autojump_clock: MockClock) -> None:
    async with uplink_on(Wire()) as uplink:
        before = trio.current_time()
        await uplink.send(speech(0.5), Codec.PCMU)
        assert trio.current_time() == before
        await uplink.send(speech(1), Codec.PCMU)
        assert trio.current_time() - before == pytest.approx(1.0, abs=0.03)
        assert uplink.queued == 25


async def test_played_means_written(autojump_clock: MockClock) -> None:
    wire = Wire()
    async with uplink_on(wire) as uplink:
        await uplink.send(speech(0.4), Codec.PCMU)
        await uplink.wait_played()
        assert wire.streams[0].audio == speech(0.4)


async def test_clearing_drops_what_has_not_gone_out_and_counts_it(autojump_clock: MockClock) -> None:
    wire = Wire()
    async with uplink_on(wire) as uplink:
        await uplink.send(speech(0.4) + b"x", Codec.PCMU)
        await trio.sleep(0.205)
        gone = len(wire.streams[0].frames)
        assert 9 <= gone <= 11
        assert uplink.clear() == 20 - gone + 1
        assert uplink.counters.packets_cleared == 20 - gone + 1
        await uplink.wait_played()
        await uplink.send(speech(0.02), Codec.PCMU)
        await uplink.wait_played()
    # The numbers go on without a gap: what was cleared was never to be heard.
    assert [frame.sequence_number for frame in wire.streams[0].frames] == list(range(gone + 2))


async def test_a_cancelled_send_drops_only_what_was_not_queued(autojump_clock: MockClock) -> None:
    wire = Wire()
    async with uplink_on(wire) as uplink:
        with trio.move_on_after(0.101):
            await uplink.send(speech(10), Codec.PCMU)
        await uplink.wait_played()
    sent, cleared = uplink.packets_sent, uplink.counters.packets_cleared
    assert sent + cleared == 500
    assert wire.streams[0].audio == speech(10)[: sent * PACKET]


async def test_without_a_connection_packets_are_shed_in_time_and_spend_their_numbers(autojump_clock: MockClock) -> None:
    wire = Wire()
    async with uplink_on(wire) as uplink:
        await uplink.send(speech(0.1), Codec.PCMU)
        await uplink.wait_played()
        wire.up = False
        uplink.connection_replaced()
        started = trio.current_time()
        await uplink.send(speech(2), Codec.PCMU)
        await uplink.wait_played()
        assert trio.current_time() - started == pytest.approx(2.0, abs=0.05)
        wire.up = True
        await uplink.send(speech(0.1), Codec.PCMU)
        await uplink.wait_played()
    assert uplink.counters.packets_shed == 100
    assert [frame.sequence_number for frame in wire.streams[1].frames] == [*range(105, 110), 110]


async def test_a_stream_that_falls_behind_sheds_before_anything_enters_it(autojump_clock: MockClock) -> None:
    wire = Wire()
    async with uplink_on(wire) as uplink:
        await uplink.send(speech(0.02), Codec.PCMU)
        await uplink.wait_played()
        wire.streams[0].backlog = round(2 * BACKLOG_SECONDS * SECOND)
        await uplink.send(speech(0.1), Codec.PCMU)
        await uplink.wait_played()
        wire.streams[0].backlog = 0
        await uplink.send(speech(0.02), Codec.PCMU)
        await uplink.wait_played()
    assert [frame.sequence_number for frame in wire.streams[0].frames[:2]] == [0, 6]
    assert uplink.counters.packets_shed == 5


async def test_what_does_not_leave_keeps_the_next_packets_out(autojump_clock: MockClock) -> None:
    """A moment is nothing; after that it would only grow old in the stream."""
    wire = Wire()
    async with uplink_on(wire) as uplink:
        await uplink.send(speech(0.02), Codec.PCMU)
        await uplink.wait_played()
        wire.streams[0].unsent = wire.streams[0].backlog = 1000
        await uplink.send(speech(0.2), Codec.PCMU)
        await uplink.wait_played()
        wire.streams[0].unsent = wire.streams[0].backlog = 0
        await uplink.send(speech(0.02), Codec.PCMU)
        await uplink.wait_played()
    assert [frame.sequence_number for frame in wire.streams[0].frames[:-1]] == [0, 1, 2, 11]
    assert uplink.counters.packets_shed == 8


async def test_a_sender_that_waits_for_room_is_woken_for_several_packets(autojump_clock: MockClock) -> None:
    async with uplink_on(Wire()) as uplink:
        await uplink.send(speech(0.5), Codec.PCMU)
        started = trio.current_time()
        await uplink.send(speech(0.02), Codec.PCMU)
        assert trio.current_time() - started == pytest.approx(0.1, abs=0.021)
        assert uplink.queued == 21


async def test_a_stream_the_gateway_stopped_is_replaced(autojump_clock: MockClock) -> None:
    wire = Wire()
    async with uplink_on(wire) as uplink:
        await uplink.send(speech(0.02), Codec.PCMU)
        await uplink.wait_played()
        wire.streams[0].error = StreamReset("stopped", stream_id=2, code=0)
        await uplink.send(speech(0.06), Codec.PCMU)
        await uplink.wait_played()
    assert [frame.sequence_number for frame in wire.streams[1].frames[:2]] == [2, 3]
    assert uplink.counters.packets_shed == 1
    assert uplink.counters.streams_opened == 2


async def test_the_end_of_the_call_ends_the_stream_and_wakes_everybody(autojump_clock: MockClock) -> None:
    wire = Wire()
    woken: list[str] = []

    async def talk(uplink: Uplink) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await uplink.send(speech(60), Codec.PCMU)
        woken.append("send")

    async def wait(uplink: Uplink) -> None:
        await uplink.wait_played()
        woken.append("wait_played")

    async with trio.open_nursery() as agents, uplink_on(wire) as uplink:
        agents.start_soon(talk, uplink)
        await trio.sleep(0.1)
        agents.start_soon(wait, uplink)
        await trio.sleep(0.1)
    assert sorted(woken) == ["send", "wait_played"]
    assert wire.streams[0].frames[-1].end_of_stream
    assert wire.streams[0].finished


async def test_a_call_that_never_spoke_opens_no_stream(autojump_clock: MockClock) -> None:
    wire = Wire()
    async with uplink_on(wire) as uplink:
        await trio.sleep(10)
        await uplink.finish()
    assert wire.streams == []
    # One tick may be needed to notice; an idle call must not keep the clock ticking.
    assert wire.flushes <= 4


async def test_a_call_that_falls_silent_costs_no_ticks_until_it_speaks_again(autojump_clock: MockClock) -> None:
    wire = Wire()
    async with uplink_on(wire) as uplink:
        for _ in range(2):
            await uplink.send(speech(0.1), Codec.PCMU)
            await uplink.wait_played()
            assert uplink.clock.statistics().members == 1
            await trio.sleep(1.1)
            assert uplink.clock.statistics().members == 0
        ticks = uplink.clock.statistics().ticks
        await trio.sleep(3600)
        assert uplink.clock.statistics().ticks == ticks
    [stream] = wire.streams
    assert stream.audio == speech(0.1) * 2


async def test_a_second_of_silence_counts_from_the_last_packet(autojump_clock: MockClock) -> None:
    async with uplink_on(Wire()) as uplink:
        for _ in range(3):
            await uplink.send(speech(0.02), Codec.PCMU)
            await uplink.wait_played()
            await trio.sleep(0.9)
            assert uplink.clock.statistics().members == 1


class Silent(Stream):
    """A stream whose peer acknowledges all at once, or, while ``stalled``, nothing."""

    stalled = False

    def write(self, data: bytes) -> None:
        super().write(data)
        self.backlog = self.backlog + len(data) if self.stalled else 0


async def say(uplink: Uplink, seconds: float) -> None:
    await uplink.send(speech(seconds), Codec.PCMU)
    await uplink.wait_played()


async def test_what_a_path_of_known_round_trip_leaves_unacknowledged_is_soon_too_old(autojump_clock: MockClock) -> None:
    stream = Silent()
    wire = Wire()
    wire.open = lambda: stream  # type: ignore[method-assign]
    async with uplink_on(wire) as uplink:
        await say(uplink, 0.2)
        stream.stalled = True
        await say(uplink, 1.0)
        assert (BACKLOG_AGE + 0.02) / 0.02 <= len(stream.frames) - 10 <= (BACKLOG_AGE + 0.06) / 0.02
        assert uplink.counters.packets_shed == 60 - len(stream.frames)
        stream.backlog, stream.stalled = 0, False
        shed = uplink.counters.packets_shed
        await say(uplink, 0.2)
        assert uplink.counters.packets_shed == shed
        assert uplink._backlog is None, "nothing waits, and nothing is noted"


async def test_while_the_round_trip_is_not_known_nothing_is_too_old(autojump_clock: MockClock) -> None:
    stream = Silent()
    stream.stalled = True
    wire = Wire()
    wire.open = lambda: stream  # type: ignore[method-assign]
    async with uplink_on(wire) as uplink:
        await say(uplink, 0.5)
        assert (len(stream.frames), uplink.counters.packets_shed) == (25, 0)


async def test_the_end_gives_the_place_on_the_clock_back_for_good(autojump_clock: MockClock) -> None:
    wire = Wire()
    async with uplink_on(wire) as uplink:
        await uplink.send(speech(0.1), Codec.PCMU)
        await uplink.finish()
        assert uplink.clock.statistics().members == 0
        uplink.flush()
        await uplink.finish()  # once more: harmless
        assert uplink.clock.statistics().members == 0


async def test_a_cancelled_send_says_nothing(autojump_clock: MockClock) -> None:
    wire = Wire()
    async with uplink_on(wire) as uplink:
        with trio.CancelScope() as scope:
            scope.cancel()
            await uplink.send(speech(0.1), Codec.PCMU)
        assert scope.cancelled_caught
        assert (uplink.queued, uplink.counters.packets_cleared) == (0, 0)
        await uplink.send(speech(0.02), Codec.PCMU)  # nobody is sending any more


async def test_what_is_queued_when_the_call_ends_is_counted_and_its_marks_are_settled(
    autojump_clock: MockClock,
) -> None:
    async with uplink_on(Wire()) as uplink:
        await uplink.send(speech(0.2), Codec.PCMU)
        before = uplink.mark("before the end")
        uplink.end()
        assert (uplink.queued, uplink.packets_sent, uplink.counters.packets_cleared) == (0, 0, 10)
        assert not await before.wait()
        assert not await uplink.mark("after it").wait()


async def test_two_tasks_cannot_talk_at_once(autojump_clock: MockClock) -> None:
    async with uplink_on(Wire()) as uplink, trio.open_nursery() as nursery:
        nursery.start_soon(uplink.send, speech(2), Codec.PCMU)
        await trio.sleep(0.1)
        with pytest.raises(trio.BusyResourceError):
            await uplink.send(b"x", Codec.PCMU)


# -- what the agent hears -------------------------------------------------------------------------------------------


def frame(number: int, *, end: bool = False, payload: bytes = b"a" * PACKET) -> AudioFields:
    return "call-1", payload, "PCMU", number, end


async def test_frames_arrive_in_order_with_their_losses() -> None:
    downlink = Downlink()
    heard = downlink.subscribe()
    for number in (7, 8, 11, 10, 11):
        downlink.arrived(frame(number), at=number * 0.02)
    downlink.arrived(frame(12, end=True, payload=b""), at=0.3)
    downlink.arrived(frame(13), at=0.3)
    got = [(each.sequence_number, each.lost_before) async for each in heard]
    assert got == [(7, 0), (8, 0), (11, 2)]
    assert downlink.tracker.late_or_duplicate == 2
    assert downlink.tracker.after_eos == 1


async def test_an_agent_that_stops_reading_keeps_the_last_second() -> None:
    downlink = Downlink()
    heard = downlink.subscribe()
    for number in range(500):
        downlink.arrived(frame(number), at=number * 0.02)
    downlink.end()
    assert [each.sequence_number async for each in heard] == list(range(450, 500))
    assert downlink.dropped == 450
