"""Which events are sent again after what, and that audio never overtakes the events it belongs behind."""

from __future__ import annotations

from typing import Any

import pytest

from agentao_trio import messages as m
from agentao_trio.gateway.downlink import Downlink
from agentao_trio.gateway.subscriptions import Entry, Peer, Subscription
from agentao_trio.messages import AudioFrame, CallEvent, MethodId
from agentao_trio.wire import FrameDecoder
from tests.support.bench import ANSWER, CREATE, HANGUP, HOLD


class Ledger:
    """A subscription, and how many of its events were lost to a bound."""

    def __init__(self, **bounds: Any) -> None:
        self.dropped = 0
        self.subscription = Subscription(
            **{"tenant": "t", "client_id": "me", "window": 120.0, "grace": 0.25, "max_entries": 100, **bounds},
            dropped=self._count,
        )

    def _count(self, number: int) -> None:
        self.dropped += number

    def add(self, call_sid: str, *types: int, now: float = 0.0) -> None:
        for event_type in types:
            self.subscription.add(CallEvent(call_sid=call_sid, event_type=event_type), now)

    def send(self) -> list[Entry]:
        """Send everything that waits to be sent."""
        sent = []
        while (entry := self.subscription.next_unsent()) is not None:
            self.subscription.sent(entry)
            sent.append(entry)
        return sent

    def send_and_name(self) -> list[tuple[str, int]]:
        return [(entry.event.call_sid, entry.event.event_type) for entry in self.send()]


def test_events_bear_the_subscriptions_client_id() -> None:
    ledger = Ledger()
    ledger.add("call", CREATE)
    (entry,) = ledger.send()
    assert entry.event.client_id == "me"


def test_after_a_lost_stream_only_hangups_come_again_and_in_order() -> None:
    ledger = Ledger()
    for sid in ("one", "two", "three"):
        ledger.add(sid, CREATE, ANSWER, HANGUP)
    ledger.send()
    ledger.add("four", CREATE)  # not sent yet
    ledger.subscription.stream_lost(1.0)
    assert ledger.send_and_name() == [("one", HANGUP), ("two", HANGUP), ("three", HANGUP), ("four", CREATE)]


def test_after_a_lost_connection_everything_that_was_not_acknowledged_comes_again_in_order() -> None:
    ledger = Ledger()
    ledger.add("call", CREATE, ANSWER, HOLD)
    create, *_ = ledger.send()
    ledger.subscription.acknowledged(create, 0.5)
    ledger.add("call", HANGUP)
    ledger.subscription.connection_lost(1.0)
    assert ledger.send_and_name() == [("call", ANSWER), ("call", HOLD), ("call", HANGUP)]


@pytest.mark.parametrize(("lost_at", "again"), [(1.2, [("call", HANGUP)]), (1.3, [])])
@pytest.mark.parametrize("loss", ["stream_lost", "connection_lost"])
def test_a_hangup_is_only_believed_to_have_arrived_after_a_moment(
    loss: str, lost_at: float, again: list[tuple[str, int]]
) -> None:
    ledger = Ledger()
    ledger.add("call", CREATE, HANGUP)
    for entry in ledger.send():
        ledger.subscription.acknowledged(entry, 1.0)
    getattr(ledger.subscription, loss)(lost_at)
    assert ledger.send_and_name() == again


def test_what_is_sent_again_has_to_be_acknowledged_again() -> None:
    ledger = Ledger()
    ledger.add("call", HANGUP)
    for _ in range(3):
        assert ledger.send_and_name() == [("call", HANGUP)]
        ledger.subscription.connection_lost(1.0)


def test_old_events_and_too_many_are_dropped_and_counted() -> None:
    ledger = Ledger(max_entries=3)
    ledger.add("old", CREATE, now=0)
    ledger.add("new", CREATE, ANSWER, now=100)
    ledger.subscription.expire(121)
    assert (len(ledger.subscription), ledger.dropped) == (2, 1)
    ledger.add("newer", CREATE, ANSWER, HANGUP, now=121)
    assert (len(ledger.subscription), ledger.dropped) == (3, 3)
    assert ledger.send_and_name() == [("newer", CREATE), ("newer", ANSWER), ("newer", HANGUP)]


def test_what_has_arrived_is_forgotten_without_being_counted() -> None:
    ledger = Ledger()
    ledger.add("call", CREATE, HANGUP)
    for entry in ledger.send():
        ledger.subscription.acknowledged(entry, 1.0)
    ledger.subscription.expire(1.1)
    assert len(ledger.subscription) == 1
    ledger.subscription.expire(1.5)
    assert (len(ledger.subscription), ledger.dropped) == (0, 0)


class FakeStream:
    """A stream that takes everything and whose backlog is what the test says."""

    def __init__(self) -> None:
        self.backlog = 0
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        self.data += data

    def kinds(self) -> list[str]:
        return [MethodId(frame.method_id).name for frame in FrameDecoder().feed(bytes(self.data))]


class FakeConnection:
    def __init__(self) -> None:
        self.stream = FakeStream()

    def open_uni_nowait(self, *, paced: bool = False) -> FakeStream:
        return self.stream


def test_audio_does_not_overtake_events_that_wait_for_room() -> None:
    ledger, connection = Ledger(), FakeConnection()
    peer = Peer(1, "t", [ledger.subscription])
    downlink = Downlink(connection, peer, stream_per_call=False)  # type: ignore[arg-type]
    frame = AudioFrame(call_sid="call", payload=bytes(160))
    ledger.add("call", CREATE)
    downlink.send_events(0.0)
    connection.stream.backlog = 1 << 20
    ledger.add("call", ANSWER)
    downlink.send_events(0.1)
    connection.stream.backlog = 0
    assert not downlink.send_audio(frame, 0.12)
    downlink.send_events(0.15)
    assert downlink.send_audio(frame, 0.16)
    assert connection.stream.kinds() == ["StreamEvents", "StreamEvents", "AudioFrame"]


def test_audio_that_has_waited_too_long_makes_the_next_one_be_dropped() -> None:
    connection = FakeConnection()
    downlink = Downlink(connection, Peer(1, "t"), stream_per_call=False)  # type: ignore[arg-type]
    frame = AudioFrame(call_sid="call", payload=bytes(160))
    size = len(m.encode(frame)) + 8
    outcomes = []
    for n in range(40):  # nothing is acknowledged
        outcomes.append(downlink.send_audio(frame, n * 0.02))
        connection.stream.backlog = size * sum(outcomes)
    assert outcomes == [True] * 26 + [False] * 14
    last = AudioFrame(call_sid="call", end_of_stream=True)
    assert downlink.send_audio(last, 1.0)
    connection.stream.backlog = 0
    assert downlink.send_audio(frame, 1.1)
