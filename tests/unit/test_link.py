"""The link by example, on connections that a test makes up: when it tries again, and what it makes of streams."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from pytest import approx  # noqa: PT013 - reads better in the tables below
from trio.testing import MockClock

from agentao_trio.errors import AuthenticationError, ConnectError, ConnectionLost, StreamReset
from agentao_trio.link import Link
from agentao_trio.transport import ReceiveStream
from agentao_trio.wire import Frame, encode_frame

SILENT = ConnectError("nothing came back")
REFUSED = ConnectError("no", refused=True)
UNWELCOME = AuthenticationError("who are you?")
RESET = StreamReset("gone", stream_id=3, code=7)

#: What a stream brings: bytes, a pause in seconds, or its failure. Afterwards it ends.
Script = tuple[bytes | float | Exception, ...]
#: What an attempt to connect comes to: a connection that lasts so many seconds, or a failure.
Outcome = float | Exception


class Stream(ReceiveStream):
    """One stream of the gateway's, or the subscription's, with what comes on it."""

    def __init__(self, script: Script) -> None:
        self.stream_id = 3
        self.script = list(script)
        self.sent = b""
        self.finished = False
        self.stopped_with: int | None = None

    async def receive_each(self, on_data: Callable[[bytes], None]) -> None:
        await trio.lowlevel.checkpoint()
        while self.script:
            match self.script.pop(0):
                case bytes(data):
                    on_data(data)
                case float(seconds):
                    await trio.sleep(seconds)
                case Exception() as failure:
                    raise failure
            if self.stopped_with is not None:
                raise trio.ClosedResourceError

    async def send_all(self, data: bytes) -> None:
        self.sent += data
        await trio.lowlevel.checkpoint()

    def finish(self) -> None:
        self.finished = True

    def stop(self, code: int = 0) -> None:
        self.stopped_with = code


class NoStreamOfAGateway:
    """A stream in both directions, which only a client may open."""

    closed = False

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


class World:
    """A link, and what its owner and the gateway see of it. From the last outcome on, attempts stay away for a day."""

    def __init__(self, outcomes: list[Outcome], streams: list[Any], subscription: Script, window: float) -> None:
        self.outcomes = outcomes
        self.streams = streams
        self.subscription = Stream(subscription)
        self.counts: Counter[str] = Counter()
        self.tried: list[float] = []
        self.patience: list[float] = []
        self.log: list[tuple[str, float]] = []
        self.frames: list[tuple[Frame, float]] = []
        self.introduced = 0
        self.window = window
        self.link: Link

    async def run(self, nursery: trio.Nursery) -> None:
        async def introduce(_: Any) -> None:
            self.introduced += 1
            await trio.lowlevel.checkpoint()

        self.link = Link(
            nursery,
            self.connect,
            introduce,
            self.counts,
            client_id="desk-7",
            rpc_length="exclusive",
            resume_window=self.window,
            on_frames=lambda frames, at: self.frames.extend((frame, at) for frame in frames),
            on_up=lambda: self.log.append(("up", trio.current_time())),
            on_down=lambda: self.log.append(("down", trio.current_time())),
        )
        await nursery.start(self.link.keep_up)

    @asynccontextmanager
    async def connect(self, patience: float) -> AsyncIterator[Any]:
        self.tried.append(trio.current_time())
        self.patience.append(patience)
        if not self.outcomes:
            await trio.sleep(86400)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        yield Connection(self, outcome)


class Connection:
    def __init__(self, world: World, seconds: float) -> None:
        self.world = world
        self.ends_at = trio.current_time() + seconds
        self.uni: list[Any] = []
        self.flushed = 0
        self.is_over = False

    async def open_bidi(self) -> Stream:
        await trio.lowlevel.checkpoint()
        return self.world.subscription

    async def accept(self) -> Any:
        await trio.lowlevel.checkpoint()
        if self.world.streams:
            return self.world.streams.pop(0)
        await trio.sleep_until(self.ends_at)
        raise ConnectionLost("gone")

    def open_uni_nowait(self, *, paced: bool) -> Any:
        assert paced
        if isinstance(self.uni[0], Exception):
            raise self.uni.pop(0)
        return self.uni.pop(0)

    def flush(self) -> None:
        self.flushed += 1


@asynccontextmanager
async def linked(
    *outcomes: Outcome, streams: tuple[Any, ...] = (), subscription: Script = (), window: float = 10.0
) -> AsyncIterator[World]:
    world = World(list(outcomes), list(streams), subscription, window)
    async with trio.open_nursery() as nursery:
        await world.run(nursery)
        yield world
        nursery.cancel_scope.cancel()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, none of them shortened by chance."""
    found: list[float] = []

    def longest(shortest: float, longest: float) -> float:
        assert shortest == longest / 2
        found.append(longest)
        return longest

    monkeypatch.setattr(random, "uniform", longest)
    return found


# -- trying again ---------------------------------------------------------------------------------------------------


async def test_it_hurries_for_as_long_as_the_gateway_remembers_us(
    pauses: list[float], autojump_clock: MockClock
) -> None:
    async with linked(3600.0, *[SILENT] * 29, window=10.0) as world:
        await trio.sleep(3700)
    # Twenty times half a second are what is left of the ten after the first few.
    assert pauses == [0.1, 0.2, 0.4, *[0.5] * 20, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0, 5.0]
    assert world.patience == [10.0] + [1.5] * 30
    assert world.tried[:5] == approx([0.0, 3600.1, 3600.3, 3600.7, 3601.2])


@pytest.mark.parametrize(("lasted", "pause"), [(5.5, 0.1), (4.5, 0.5)])
async def test_only_a_connection_that_lasted_starts_the_pauses_anew(
    lasted: float, pause: float, pauses: list[float], autojump_clock: MockClock
) -> None:
    async with linked(60.0, SILENT, SILENT, SILENT, lasted, SILENT):
        await trio.sleep(100)
    assert pauses == [0.1, 0.2, 0.4, 0.5, pause, min(2 * pause, 1.0)]


@pytest.mark.parametrize("refusal", [REFUSED, UNWELCOME])
async def test_who_refuses_us_is_asked_every_five_seconds(
    refusal: Exception, pauses: list[float], autojump_clock: MockClock
) -> None:
    async with linked(60.0, refusal, refusal, SILENT, window=120.0):
        await trio.sleep(100)
    assert pauses == [0.1, 5.0, 5.0, 5.0]


async def test_who_refused_us_once_and_then_is_silent_may_be_coming_back(
    pauses: list[float], autojump_clock: MockClock
) -> None:
    async with linked(60.0, REFUSED, SILENT, SILENT, window=120.0):
        await trio.sleep(100)
    assert pauses == [0.1, 5.0, 5.0, 0.5]


async def test_the_first_attempt_may_fail_for_good(autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(ConnectError, match="nothing came back")):
        async with linked(SILENT, 60.0):
            pass


async def test_a_failure_that_many_tasks_saw_is_told_once(autojump_clock: MockClock) -> None:
    seen = BaseExceptionGroup("tasks", [BaseExceptionGroup("inner", [SILENT]), UNWELCOME])
    with pytest.RaisesGroup(pytest.RaisesExc(ConnectError, match="nothing came back")):
        async with linked(seen):  # type: ignore[arg-type]
            pass


async def test_its_owner_hears_of_every_coming_and_going(pauses: list[float], autojump_clock: MockClock) -> None:
    async with linked(60.0, SILENT, REFUSED, 60.0) as world:
        assert world.link.failure is None
        await trio.sleep(60.2)
        assert (world.link.connection, world.link.failure) == (None, SILENT)
        await trio.sleep(0.2)
        assert world.link.failure is REFUSED
        with trio.fail_after(5):
            assert await world.link.wait_up() is world.link.connection
        assert world.link.failure is None
        await trio.sleep(70)
    assert [what for what, _ in world.log] == ["up", "down", "up", "down"]
    assert [at for _, at in world.log] == approx([0.0, 60.0, 65.3, 125.3])
    assert world.introduced == 2
    assert (world.counts["connections"], world.counts["reconnects_failed"]) == (2, 2)


async def test_waiting_for_a_connection_takes_as_long_as_it_takes(autojump_clock: MockClock) -> None:
    async with linked(60.0, 60.0) as world:
        await trio.sleep(60.01)
        began = trio.current_time()
        assert await world.link.wait_up() is world.link.connection
        assert 0 < trio.current_time() - began < 0.1


async def test_a_connection_that_has_just_ended_is_not_given_to_anybody(autojump_clock: MockClock) -> None:
    async with linked(60.0, 60.0) as world:
        ended: Any = world.link.connection
        ended.is_over, ended.ends_at = True, trio.current_time()  # whoever owns it has not run since
        with trio.move_on_after(0.001):
            await world.link.wait_up()
        assert (world.link.connection, [what for what, _ in world.log]) == (None, ["up", "down"])


# -- with and without a connection ----------------------------------------------------------------------------------


async def test_streams_for_audio_come_when_there_are_some_to_be_had(autojump_clock: MockClock) -> None:
    stream = object()
    async with linked(60.0) as world:
        connection: Any = world.link.connection
        connection.uni = [stream, trio.WouldBlock(), ConnectionLost("gone"), trio.ClosedResourceError()]
        assert [world.link.open_uni() for _ in range(4)] == [stream, None, None, None]
        world.link.flush()
        assert connection.flushed == 1
        await trio.sleep(60.05)
        assert world.link.open_uni() is None
        world.link.flush()
        assert connection.flushed == 1


# -- streams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subscription", "waits"),
    [
        ((86400.0,), 0.5),
        ((0.2, b"\x00", 86400.0), 0.2),
        ((0.2,), 0.2),
        ((0.2, RESET), 0.2),
        ((0.2, ConnectionLost("gone")), 0.2),
    ],
    ids=["no answer", "first data", "end", "reset", "lost"],
)
async def test_a_subscription_is_taken_for_accepted_after_half_a_second(
    subscription: Script, waits: float, autojump_clock: MockClock
) -> None:
    async with linked(60.0, subscription=subscription) as world:
        assert world.log == [("up", approx(waits))]
        assert b"desk-7" in world.subscription.sent
        assert world.subscription.finished


async def test_frames_are_handed_on_with_the_time_they_came(autojump_clock: MockClock) -> None:
    frames = encode_frame(7, b"a") + encode_frame(8, b"b")
    async with linked(60.0, streams=(Stream((1.0, frames[:12], 1.0, frames[12:])),)) as world:
        await trio.sleep(10)
    assert world.frames == [((7, b"a"), approx(1.0)), ((8, b"b"), approx(2.0))]
    assert world.counts["streams_read"] == 2  # the subscription is one
    assert not world.counts["streams_truncated"]


async def test_what_is_wrong_with_a_stream_is_counted(autojump_clock: MockClock) -> None:
    too_long = Stream((encode_frame(7, b"a") + b"\xff\xff\xff\xff", b"more", RESET))
    backwards = NoStreamOfAGateway()
    streams = (
        too_long,
        Stream((b"\x02\x00\x00\x00no" * 3,)),
        Stream((encode_frame(7, b"cut")[:9],)),
        Stream((encode_frame(7, b"cut")[:1],)),
        Stream((RESET,)),
        Stream((trio.ClosedResourceError(),)),
        backwards,
    )
    async with linked(60.0, streams=streams) as world:
        await trio.sleep(10)
        assert world.counts == {
            "connections": 1,
            "streams_read": 7,
            "streams_abandoned": 2,
            "streams_reset": 1,
            "streams_truncated": 2,
            "frames_short": 3,
        }
        assert [frame for frame, _ in world.frames] == [(7, b"a")]
        assert too_long.stopped_with == 1
        assert too_long.script[0] == b"more"  # nobody reads on
        assert backwards.closed
        assert world.link.connection is not None
