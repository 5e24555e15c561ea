"""The router by example: who gets what, which calls are lost after an outage, and how those nobody owns are ended."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from agentao_trio import messages, routing
from agentao_trio.errors import ConnectionLost
from agentao_trio.events import EventRecord
from agentao_trio.messages import AudioFrame, CallEvent, EventType, MethodId
from agentao_trio.routing import CallRouter
from agentao_trio.statistics import MediaStatistics
from agentao_trio.wire import Frame

CREATE, ANSWER, HOLD, HANGUP = (
    EventType.CHANNEL_CREATE,
    EventType.CHANNEL_ANSWER,
    EventType.CHANNEL_HOLD,
    EventType.CHANNEL_HANGUP_COMPLETE,
)


class Call:
    """What the router knows of a call, and what it made of it."""

    def __init__(self, call_sid: str, heard_at: float = 0.0) -> None:
        self.call_sid = call_sid
        self.told: list[int] = []
        self.audio = 0
        self.failures: list[Exception] = []
        self.asked_at: list[float] = []
        self.answers_after = 0.0
        self.is_alive = False
        self._heard_at = heard_at

    def _deliver_event(self, record: EventRecord) -> None:
        self.told.append(record.event.event_type)
        self._heard_at = record.received_at

    def _deliver_audio(self, fields: Any, now: float) -> None:
        self.audio += 1

    def _deliver_failure(self, failure: Exception) -> None:
        self.failures.append(failure)

    def _media(self) -> MediaStatistics:
        return MediaStatistics(packets_received=self.audio)

    def _rename(self, call_sid: str) -> None:
        self.call_sid = call_sid

    async def _ask_after(self) -> None:
        self.asked_at.append(trio.current_time())
        await trio.sleep(self.answers_after)
        if self.is_alive:
            self._heard_at = trio.current_time()


class Seat:
    """What the router knows of a supervisor, and what it made of it."""

    def __init__(self, heard_at: float) -> None:
        self.told: list[int] = []
        self.audio = self.ended = 0
        self._heard_at = heard_at

    def _deliver_event(self, record: EventRecord) -> None:
        self.told.append(record.event.event_type)

    def _deliver_audio(self, fields: Any, now: float) -> None:
        self.audio += 1

    def _end(self) -> None:
        self.ended += 1


class World:
    """A router, whose owner notes which calls it was asked to hang up, and after how many seconds."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.hung_up: list[tuple[str, float]] = []
        self.router = CallRouter(self.counts, lambda call_sid, seconds: self.hung_up.append((call_sid, seconds)))
        self.seen: list[int] = []
        self.strays = 0
        self.router.on_event = lambda record: self.seen.append(record.event.event_type)
        self.router.on_stray = self._stray
        self._timestamp_ms = 0

    def _stray(self) -> None:
        self.strays += 1

    def adopt(self, call_sid: str, heard_at: float = 0.0) -> Any:
        call: Any = Call(call_sid, heard_at)
        self.router.adopt(call)
        return call

    def supervise(self, call_sid: str, heard_at: float = 0.0) -> Any:
        seat: Any = Seat(heard_at)
        self.router.supervised[call_sid] = seat
        return seat

    def event(self, call_sid: str, event_type: int, now: float = 0.0, **fields: Any) -> None:
        self._timestamp_ms += 1
        fields.setdefault("timestamp_ms", self._timestamp_ms)
        body = messages.encode(CallEvent(call_sid=call_sid, event_type=event_type, **fields))
        self.router.route([Frame(MethodId.StreamEvents, body)], now)

    def audio(self, call_sid: str, now: float = 0.0) -> None:
        body = messages.encode(AudioFrame(call_sid=call_sid, payload=b"x" * 160, codec="PCMU"))
        self.router.route([Frame(MethodId.AudioFrame, body)], now)


@pytest.fixture
def world() -> World:
    return World()


# -- events ---------------------------------------------------------------------------------------------------------


def test_a_call_is_told_its_events_until_its_hangup(world: World) -> None:
    call, other = world.adopt("a"), world.adopt("b")
    for event_type in (CREATE, ANSWER, HANGUP):
        world.event("a", event_type)
    assert call.told == [CREATE, ANSWER, HANGUP]
    assert other.told == []
    assert list(world.router.calls) == ["b"]
    assert world.counts == {"frames": 3, "events": 3, "calls_ended": 1}


def test_what_is_replayed_is_seen_and_counted_but_not_told_again(world: World) -> None:
    call = world.adopt("a")
    for _ in range(3):
        world.event("a", CREATE, timestamp_ms=5)
    assert call.told == [CREATE]
    assert world.seen == [CREATE] * 3
    assert world.counts == {"frames": 3, "events": 3, "events_duplicate": 2}


async def test_an_event_of_type_unknown_is_dropped_and_one_that_is_new_is_told(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    call = world.adopt("a")
    reader = world.router.subscribe(None, None, bound=10, overflow="drop_oldest")
    world.event("a", EventType.UNKNOWN)
    assert call.told == []
    world.event("a", 99)
    assert call.told == [99]
    assert (await anext(reader)).event.event_type == 99
    assert world.counts == {"frames": 2, "events": 2, "events_unknown_type": 2}
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_what_is_out_of_order_is_told_and_counted(world: World, caplog: pytest.LogCaptureFixture) -> None:
    call = world.adopt("a")
    world.event("a", HOLD)
    world.event("a", CREATE)
    world.event("another's", HOLD)  # whose beginning nobody here has to have heard
    assert call.told == [HOLD, CREATE]
    assert world.counts["events_out_of_order"] == 3
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


def test_a_supervisor_hears_a_call_that_another_session_holds_until_it_ends(world: World) -> None:
    seat = world.supervise("a")
    world.audio("a")
    for event_type in (ANSWER, HANGUP):
        world.event("a", event_type)
    assert (seat.audio, seat.told, world.strays) == (1, [ANSWER, HANGUP], 0)


def test_a_supervisor_hears_a_call_that_was_released_here_until_it_ends(world: World) -> None:
    world.router.release(world.adopt("a"))
    seat = world.supervise("a")
    world.audio("a")
    world.event("a", HANGUP)
    assert (seat.audio, seat.told, world.strays) == (1, [HANGUP], 0)


# -- strays ---------------------------------------------------------------------------------------------------------


def test_a_call_that_is_adopted_late_gets_what_has_come_already_once(world: World) -> None:
    world.event("a", CREATE)
    world.event("a", ANSWER)
    assert (world.router.unclaimed(), world.strays) == (["a"], 2)
    assert world.adopt("a").told == [CREATE, ANSWER]
    assert world.router.unclaimed() == []
    assert world.adopt("a").told == []


def test_a_stray_that_has_ended_is_over_as_soon_as_it_is_adopted(world: World) -> None:
    world.event("a", CREATE)
    world.event("a", HANGUP)
    assert world.router.unclaimed() == []
    assert world.adopt("a").told == [CREATE, HANGUP]
    assert not world.router.calls


def test_the_gateways_name_replaces_ours(world: World) -> None:
    call = world.adopt("ours")
    world.event("theirs", CREATE)
    world.router.rename(call, "ours")
    assert list(world.router.calls) == ["ours"]
    world.router.rename(call, "theirs")
    assert (list(world.router.calls), call.call_sid, call.told) == (["theirs"], "theirs", [CREATE])


async def test_a_call_that_was_over_before_the_gateway_named_it_is_hung_up_under_that_name(
    world: World, autojump_clock: MockClock
) -> None:
    call = world.adopt("ours")
    world.router.disown(call)
    world.event("theirs", CREATE)
    world.router.rename(call, "ours")
    world.router.rename(call, "theirs")
    assert [name for name, _ in world.hung_up] == ["ours", "theirs"]
    assert (world.router.unclaimed(), call.told) == ([], [])


def test_strays_are_bounded_in_number_in_events_and_in_bytes(world: World) -> None:
    world.event("long", CREATE, status="x" * 5000)
    assert (world.router.unclaimed(), world.counts["stray_calls_forgotten"], world.strays) == ([], 1, 0)
    for number in range(routing.STRAY_CALLS + 1):
        world.event(f"{number}", CREATE)
    assert len(world.router.unclaimed()) == routing.STRAY_CALLS
    assert "0" not in world.router.unclaimed()
    assert world.counts["stray_calls_forgotten"] == 2
    for _ in range(routing.STRAY_EVENTS):
        world.event("1", HOLD)
    assert world.adopt("1").told == [HOLD] * routing.STRAY_EVENTS


def test_a_stray_is_too_long_from_4097_bytes_on(world: World) -> None:
    others = len(messages.encode(CallEvent(call_sid="a", event_type=CREATE)))
    world.event("a", CREATE, status="x" * (routing.STRAY_BYTES - others))
    assert world.router.unclaimed() == ["a"]
    world.event("b", CREATE, status="x" * (routing.STRAY_BYTES - others + 1))
    assert world.router.unclaimed() == ["a"]


# -- calls without an owner -----------------------------------------------------------------------------------------


def test_a_call_that_is_over_keeps_its_figures(world: World) -> None:
    call = world.adopt("a")
    world.audio("a")
    for _ in range(3):
        world.router.forget(call)
        assert world.router.media_statistics().packets_received == 1


async def test_a_disowned_call_is_hung_up_at_once_and_again_when_it_lives_on(
    world: World, autojump_clock: MockClock
) -> None:
    call = world.adopt("a")
    await trio.sleep(10)
    world.router.disown(call)
    assert not world.router.calls
    assert world.router.may_live("a")
    assert world.hung_up == [("a", 0.0)]
    # It may be that the Terminate has overtaken the Originate: once more, a second after the first.
    world.event("a", CREATE, now=10.25)
    assert world.hung_up[1:] == [("a", 0.75)]
    # Nothing more until that has been carried out, and then not more often than once a second.
    for now in (10.5, 10.75):
        world.event("a", ANSWER, now=now)
    assert len(world.hung_up) == 2
    world.audio("a", now=15.0)
    assert world.hung_up[2:] == [("a", 0.0)]
    world.audio("a", now=15.0)
    assert world.hung_up[3:] == [("a", 1.0)]
    world.event("a", HANGUP, now=17.0)
    assert not world.router.may_live("a")
    assert len(world.hung_up) == 4
    assert call.told == []
    assert (world.counts["calls_disowned"], world.counts["audio_for_unknown_calls"], world.strays) == (1, 2, 0)


async def test_of_too_many_disowned_calls_the_oldest_is_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "DISOWNED_CALLS", 2)
    for name in "abc":
        world.router.disown(world.adopt(name))
    assert [world.router.may_live(name) for name in "abc"] == [False, True, True]


def test_a_released_call_goes_on_and_nobody_cares_until_its_hangup(world: World) -> None:
    world.router.release(world.adopt("a"))
    world.event("a", ANSWER)
    world.event("a", HANGUP)
    assert (world.hung_up, world.strays) == ([], 0)
    world.event("b", HANGUP)
    assert world.strays == 1


def test_what_a_hangup_has_overtaken_is_no_stray(world: World) -> None:
    call = world.adopt("ours")
    for event_type in (HANGUP, CREATE, ANSWER, 99):
        world.event("ours", event_type)
        world.event("another's", event_type)
    assert call.told == [HANGUP]
    assert (world.router.unclaimed(), world.strays) == ([], 1)


# -- after an outage ------------------------------------------------------------------------------------------------


async def test_calls_of_which_nothing_was_heard_since_are_lost_when_the_gateway_forgets(
    world: World, autojump_clock: MockClock
) -> None:
    silent, heard, just_heard = (
        world.adopt(name, heard_at) for name, heard_at in [("a", 99.9), ("b", 101), ("c", 100)]
    )
    await trio.sleep(110)
    await world.router.lose_silent_calls(100.0, 120.0, lambda: False)
    assert trio.current_time() == pytest.approx(220.0)
    [failure] = silent.failures
    assert isinstance(failure, ConnectionLost)
    assert "call a: nothing was heard of it for 120 s" in str(failure)
    assert (heard.failures, just_heard.failures) == ([], [])
    assert list(world.router.calls) == ["b", "c"]
    assert world.router.may_live("a")
    assert world.hung_up == [("a", 0.0)]
    assert world.counts["calls_lost"] == 1
    assert silent.asked_at == []  # there was nobody to ask


async def test_a_supervisor_who_heard_nothing_since_has_lost_the_call(world: World, autojump_clock: MockClock) -> None:
    silent, heard = world.supervise("a", 99.9), world.supervise("b", 100.0)
    await world.router.lose_silent_calls(100.0, 120.0, lambda: True)
    assert trio.current_time() == pytest.approx(220.0)
    assert (silent.ended, heard.ended) == (1, 0)
    assert world.counts["calls_lost"] == 0


async def test_where_there_is_a_connection_the_gateway_is_asked_first(world: World, autojump_clock: MockClock) -> None:
    alive, gone, slow = (world.adopt(name, -1.0) for name in ("alive", "gone", "slow"))
    just_heard = world.adopt("heard", 0.0)
    alive.is_alive = slow.is_alive = True
    alive.answers_after, slow.answers_after = 2.9, 3.1
    await world.router.lose_silent_calls(0.0, 120.0, lambda: True)
    assert [call.asked_at for call in (alive, gone, slow)] == [[120.0]] * 3  # all at once
    assert just_heard.asked_at == []
    assert trio.current_time() == pytest.approx(123.0)
    assert [len(call.failures) for call in (alive, gone, slow)] == [0, 1, 1]
    assert world.counts["calls_lost"] == 2


async def test_a_call_that_ends_while_it_is_asked_after_is_not_lost(world: World, autojump_clock: MockClock) -> None:
    call = world.adopt("a", -1.0)
    call.answers_after = 2.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.router.lose_silent_calls, 0.0, 120.0, lambda: True)
        await trio.sleep(121)
        world.router.forget(call)
    assert call.failures == []
    assert world.hung_up == []
