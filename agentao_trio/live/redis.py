"""Live calls of several machines through Redis, for any Socket.IO server that uses the Redis adapter. Needs the extra
``redis``.

::

    async with open_session("quic://gateway.example:9090") as session, fan_out(session, "redis://redis.example:6379"):
        ...

Theory of operation
-------------------
Every worker publishes its own calls' events in the form that Socket.IO's Redis adapter expects of an emitter: on the
channel ``<key>#/#``, or ``<key>#/#<room>#`` for one room, a MessagePack array of the emitter's name, the packet and the
rooms. An event and the state it leads to go to Redis in one transaction, so that whoever joins a room first and reads
the state then misses nothing, and what comes twice is dropped by its number.

The state is in hashes, by sid, one pair for each worker: ``<state>:calls:<worker>`` holds call objects,
``<state>:transcripts:<worker>`` what was said, both as JSON. ``<state>:workers`` is the set of workers. A worker that
is gone takes its hashes with it after a minute. ``<state>:epoch`` is what all workers number their events under.

While Redis is out of reach, calls go on and nothing is kept for it but the state; events missed so are counted. When it
is back, the worker writes its state anew and sends every call of it to all that listen.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import attrs
import trio

try:
    import anyio  # beneath coredis, which lets some of its errors through
    import coredis
    import msgspec
    from coredis.exceptions import RedisError
except ModuleNotFoundError as _missing:
    raise ModuleNotFoundError(
        "agentao_trio.live.redis needs the extra 'redis': pip install 'agentao-trio[redis]'", name=_missing.name
    ) from _missing

from agentao_trio.hub import Hub
from agentao_trio.live.feed import CALLS, Feed, LiveEvent
from agentao_trio.live.server import MOST_RECORDS, Source
from agentao_trio.records import Record
from agentao_trio.services import task_nursery

__all__ = ["FanOut", "FanOutStatistics", "fan_out"]

log: logging.Logger = logging.getLogger(__name__)

#: Seconds that a worker's state outlives it, and between two signs of life.
STATE_SECONDS = 60
SIGN_SECONDS = 15.0
#: Seconds for one exchange with Redis, and the longest pause before the next attempt to reach it.
EXCHANGE_SECONDS = 10.0
LONGEST_PAUSE = 5.0
#: What tells that Redis is not there.
_LOST = (RedisError, OSError, TimeoutError, anyio.ClosedResourceError, anyio.BrokenResourceError)
#: Records in one transaction.
RECORDS_TOGETHER = 64

#: Socket.IO's number for an event, in its decoded form (socket.io-parser).
_EVENT = 2

_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()


@attrs.frozen(kw_only=True)
class FanOutStatistics:
    """A fan-out's figures since it was started."""

    connected: bool
    events_published: int
    #: Events that Redis was out of reach for; the state was sent instead when it was back.
    events_missed: int
    #: Records dropped because the program was too busy to take them.
    records_dropped: int
    connections: int


def published(event: LiveEvent, key: str) -> tuple[str, bytes]:
    """An event as the Redis adapter of Socket.IO takes it: the channel and the message."""
    packet = {"type": _EVENT, "data": [event.name, *event.args], "nsp": "/"}
    options = {"rooms": event.rooms, "except": (), "flags": {}}
    room = f"{event.rooms[0]}#" if len(event.rooms) == 1 else ""
    return f"{key}#/#{room}", _msgpack.encode(("emitter", packet, options))


class FanOut:
    """Hands a hub's calls to Redis; :func:`fan_out` starts it."""

    def __init__(self, hub: Hub, url: str, *, key: str, state: str) -> None:
        #: This worker's part of the names of its hashes.
        self.worker: str = secrets.token_hex(8)
        self._hub = hub
        self._url = url
        self._key = key
        self._state = state
        self._calls = f"{state}:calls:{self.worker}"
        self._transcripts = f"{state}:transcripts:{self.worker}"
        self._feed: Feed | None = None
        self._stored: set[str] = set()
        self._records: deque[Record] = deque(maxlen=MOST_RECORDS)
        self._some_record = trio.Event()
        self._connected = False
        self._published = self._missed = self._dropped = self._connections = 0

    def __repr__(self) -> str:
        state = "connected" if self._connected else "not connected"
        return f"<FanOut {self.worker}, {state}, {self._published} events published, {self._missed} missed>"

    def statistics(self) -> FanOutStatistics:
        """A snapshot of the counts."""
        return FanOutStatistics(
            connected=self._connected,
            events_published=self._published,
            events_missed=self._missed,
            records_dropped=self._dropped,
            connections=self._connections,
        )

    def take(self, record: Record) -> None:
        """Put a record aside for the task that publishes. Never waits."""
        self._dropped += len(self._records) == MOST_RECORDS
        self._records.append(record)
        self._some_record.set()

    async def run(self, started: trio.Event) -> None:
        """Keep a connection to Redis and publish over it, for ever. Sets ``started`` with the first one."""
        pause = 0.1
        while True:
            connections = self._connections
            try:
                async with coredis.Redis.from_url(self._url, connect_timeout=EXCHANGE_SECONDS) as redis:
                    await self._publish(redis, started)
            except* _LOST as lost:
                if self._connected:
                    log.warning("live calls: Redis is out of reach: %s", lost.exceptions[0])
            self._connected = False
            pause = 0.1 if self._connections > connections else min(2 * pause, LONGEST_PAUSE)
            with trio.move_on_after(pause):
                while True:
                    await self._keep_up()

    async def withdraw(self) -> None:
        """Take this worker's calls out of Redis, as far as it can be reached."""
        try:
            async with coredis.Redis.from_url(self._url, connect_timeout=1) as redis:
                await redis.delete([self._calls, self._transcripts])
                await redis.srem(f"{self._state}:workers", [self.worker])
        except* _LOST as failures:
            log.debug("live calls stay in Redis for a while: %s", failures.exceptions[0])

    async def _keep_up(self) -> None:
        """Follow the calls while there is nobody to tell."""
        await self._some_record.wait()
        if self._feed is None:  # what they are numbered under is not known yet
            await trio.sleep_forever()
        self._missed += len(self._take_events())
        await trio.lowlevel.checkpoint()

    def _take_events(self) -> list[LiveEvent]:
        assert self._feed is not None  # nothing is published before the epoch is known
        events: list[LiveEvent] = []
        for _ in range(min(len(self._records), RECORDS_TOGETHER)):
            events += self._feed.record(self._records.popleft())
        if not self._records:
            self._some_record = trio.Event()
        return events

    async def _publish(self, redis: coredis.Redis[bytes], started: trio.Event) -> None:
        if self._feed is None:
            await redis.set(f"{self._state}:epoch", secrets.token_hex(8), condition=coredis.PureToken.NX)
            epoch = await redis.get(f"{self._state}:epoch")
            self._feed = Feed(epoch.decode() if epoch else self.worker)
        await self._renew(redis)
        self._connected = True
        self._connections += 1
        started.set()
        sign_due = trio.current_time()
        while True:
            if trio.current_time() >= sign_due:
                sign_due = trio.current_time() + SIGN_SECONDS
                await self._give_sign(redis)
            with trio.move_on_at(sign_due):
                await self._some_record.wait()
            if events := self._take_events():
                await self._exchange(redis, events)

    async def _renew(self, redis: coredis.Redis[bytes]) -> None:
        """Write the whole state, and send every call to whoever listens: they may have missed something."""
        assert self._feed is not None  # it was made before
        self._take_events()
        self._stored.clear()
        await redis.delete([self._calls, self._transcripts])
        found = [self._feed.call(call_sid) for call_sid in self._feed.calls()]
        events = [attrs.evolve(event, rooms=(CALLS,)) for event in found if event is not None]
        await self._exchange(redis, events, transcripts=self._feed.transcripts())

    async def _exchange(
        self, redis: coredis.Redis[bytes], events: Iterable[LiveEvent], transcripts: Iterable[LiveEvent] = ()
    ) -> None:
        """Events and the state they lead to, in one transaction."""
        assert self._feed is not None  # it was made before
        calls = self._feed.calls()
        said = {event.args[0]["callSid"]: event.args[0] for event in transcripts}
        messages: list[tuple[str, bytes]] = []
        touched: set[str] = set()
        for event in events:
            match event.name:
                case "active_calls":  # of one worker: to a client it would say that there are no others
                    touched |= calls.keys()
                    continue
                case "transcript_message" if (full := self._feed.transcript(event.args[0]["callSid"])) is not None:
                    said[event.args[0]["callSid"]] = full.args[0]
                case "call_update" | "call_data":
                    touched.add(event.args[0]["callSid"])
            messages.append(published(event, self._key))
        gone = self._stored - calls.keys()
        with trio.fail_after(EXCHANGE_SECONDS):
            async with redis.pipeline(transaction=True) as transaction:
                _store(transaction, self._calls, {sid: calls[sid] for sid in touched if sid in calls})
                _store(transaction, self._transcripts, said)
                if gone:
                    transaction.hdel(self._calls, sorted(gone))
                    transaction.hdel(self._transcripts, sorted(gone))
                for channel, message in messages:
                    transaction.publish(channel, message)
        self._stored |= touched
        self._stored &= calls.keys()
        self._published += len(messages)

    async def _give_sign(self, redis: coredis.Redis[bytes]) -> None:
        with trio.fail_after(EXCHANGE_SECONDS):
            async with redis.pipeline(transaction=True) as transaction:
                transaction.sadd(f"{self._state}:workers", [self.worker])
                transaction.expire(self._calls, STATE_SECONDS)
                transaction.expire(self._transcripts, STATE_SECONDS)


def _store(transaction: Any, name: str, values: Mapping[str, Any]) -> None:
    if values:
        transaction.hset(name, {sid: _json.encode(value) for sid, value in values.items()})
        transaction.expire(name, STATE_SECONDS)


@contextlib.asynccontextmanager
async def fan_out(
    source: Source | Hub, url: str, *, key: str = "socket.io", state: str = "agentao-live"
) -> AsyncIterator[FanOut]:
    """Hand the calls of a session to Redis, for as long as the block runs.

    Enters once Redis has been reached, which is tried for 10 s; raises :class:`OSError` after that. Later losses are
    waited out. ``key`` is the prefix that the Socket.IO servers' adapters were given, ``state`` the beginning of the
    names of this package's own keys. Leaving, also by cancellation, takes this worker's calls out of Redis.
    """
    hub = source if isinstance(source, Hub) else source.hub
    fan = FanOut(hub, url, key=key, state=state)
    detach = hub.attach(fan.take)
    try:
        async with task_nursery() as nursery:
            started = trio.Event()
            nursery.start_soon(fan.run, started)
            with trio.move_on_after(EXCHANGE_SECONDS):
                await started.wait()
            if not started.is_set():
                raise ConnectionError(f"Redis cannot be reached within {EXCHANGE_SECONDS:.0f} s")
            yield fan
    finally:
        detach()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await fan.withdraw()
