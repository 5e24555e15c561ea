"""Several workers, on one machine or many, that share their calls through Redis. Needs the extra ``redis``.

::

    async with open_fleet("redis://redis.example:6379") as fleet:
        hub = Hub()
        fleet.attach(hub)
        await serve(answer, "quic://gateway.example:9090", trunks=["main"], claim=fleet.claim, hub=hub)

Theory of operation
-------------------
*Claims.* A gateway tells every worker of a call that comes in. A worker takes it once it has set a key with the call's
name, which lapses after ``claim_seconds`` unless it is renewed: that is how a dead worker's calls come back to the
others, who look again every second. When the call has been answered the key says so for as long as anybody could ask.
A claim that cannot be renewed in time, because Redis is gone, is given up before it lapses, and the call is left to
others; what has been answered goes on, Redis or not. Without Redis nobody takes another call.

*Records* of an attached hub go to a stream, in order, each once: a script appends only what is newer than the last that
the stream has of that run. They wait in memory while Redis is gone; beyond ``max_waiting`` bytes the newest are dropped
and counted. Consumer groups read the stream, see :meth:`Fleet.consume`.

*Numbers* of a campaign are shared through a stream of their own, see :class:`~agentao_trio.fleet_numbers.Numbers`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import operator
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import attrs
import trio

from agentao_trio.callstate import CallState
from agentao_trio.errors import CallError, ConnectionLost
from agentao_trio.fleet_link import FleetError, RedisLink
from agentao_trio.fleet_numbers import Numbers
from agentao_trio.fleet_records import append, consume
from agentao_trio.hub import Hub
from agentao_trio.records import Record
from agentao_trio.services import service_nursery, task_nursery

__all__ = ["Fleet", "FleetError", "FleetStatistics", "Shipped", "open_fleet"]

log: logging.Logger = logging.getLogger("agentao_trio.fleet")

#: Seconds that a loser looks whether the call is free again, and between two looks.
LOOK_SECONDS, LOOK_INTERVAL = 60.0, 1.0
#: Seconds that a call is known to have been taken: longer than anybody looks.
TAKEN_SECONDS = 600
#: How much of a claim's time may pass unconfirmed before its owner gives it up: the rest is for clocks and the way.
TRUSTED_SHARE = 0.8
#: Seconds to reach Redis at the beginning, to send what waits at the end, and for the last word about one claim.
OPEN_SECONDS, CLOSE_SECONDS, LAST_WORD_SECONDS = 10.0, 3.0, 1.0
#: Records sent at a time, and seconds before another attempt.
BATCH, RETRY = 500, 0.2
#: What a record takes in memory besides its text, roughly.
_OVERHEAD = 300

_OURS, _TAKEN = b"ours", b"taken"
#: Takes a call that is free, and renews a claim of one's own.
_CLAIM = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return held end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 'ours'
"""
_SETTLE = """
local held = redis.call('GET', KEYS[1])
if not held or held == ARGV[1] then redis.call('SET', KEYS[1], 'taken', 'EX', ARGV[2]) end
"""
_GIVE_BACK = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class Claimed(Protocol):
    """What a claim needs of a call."""

    @property
    def call_sid(self) -> str: ...
    @property
    def state(self) -> CallState: ...
    @property
    def released(self) -> bool: ...
    async def wait_answered(self) -> None: ...
    def release(self) -> None: ...


@attrs.frozen(kw_only=True)
class Shipped:
    """A record out of the stream, and where it is from: ``run`` and ``record.number`` together name it."""

    worker: str
    run: str
    record: Record


@attrs.frozen(kw_only=True)
class FleetStatistics:
    """A worker's figures since its fleet was opened."""

    connected: bool
    connections: int
    records_sent: int
    #: Records that wait for Redis, and the bytes they take, roughly.
    records_waiting: int
    bytes_waiting: int
    #: Records dropped because Redis was gone for too long.
    records_dropped: int
    #: Calls this worker took; those it left to others; those it gave up because Redis did not confirm the claim.
    claims_won: int
    claims_lost: int
    claims_lapsed: int


class Fleet:
    """One worker's part in a fleet. Made by :func:`open_fleet`."""

    def __init__(
        self,
        link: RedisLink,
        services: trio.Nursery,
        *,
        name: str,
        worker: str,
        claim_seconds: float,
        max_waiting: int,
        keep_records: int,
    ) -> None:
        #: What this worker is called among the others.
        self.worker = worker
        self._link = link
        self._services = services
        self._name = name
        self._claim_seconds = claim_seconds
        self._max_waiting = max_waiting
        self._keep_records = keep_records
        self._claiming = trio.Lock()
        self._waiting: deque[tuple[str, int, str]] = deque()
        self._bytes_waiting = 0
        self._some_record = trio.lowlevel.ParkingLot()
        self._some_sent = trio.lowlevel.ParkingLot()
        self._detach: list[Callable[[], None]] = []
        self._consumers = itertools.count(1)
        self._sent = self._dropped = 0
        self._won = self._lost = self._lapsed = 0

    def __repr__(self) -> str:
        state = "connected" if self._link.connected else "not connected"
        waiting = len(self._waiting)
        return f"<Fleet {self._name} as {self.worker}, {state}, {self._won} calls won, {waiting} records waiting>"

    def statistics(self) -> FleetStatistics:
        """A snapshot of this worker's figures."""
        return FleetStatistics(
            connected=self._link.connected,
            connections=self._link.connections,
            records_sent=self._sent,
            records_waiting=len(self._waiting),
            bytes_waiting=self._bytes_waiting,
            records_dropped=self._dropped,
            claims_won=self._won,
            claims_lost=self._lost,
            claims_lapsed=self._lapsed,
        )

    # -- claims -----------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def claim(self, call: Claimed, has_room: Callable[[], bool]) -> AsyncIterator[bool]:
        """Whether an incoming call is this worker's; for the ``claim`` of :func:`~agentao_trio.serve`.

        Waits while another worker has claimed the call without having answered it, or ``has_room`` says no: for a
        minute at most. The claim holds for as long as the block runs, and is given back where the call has been
        neither answered nor ended by then. A claim that is lost on the way releases the call. Cancelled, nothing stays
        claimed.
        """
        key, token = f"{self._name}:call:{call.call_sid}", f"{self.worker}:{uuid.uuid4()}"
        confirmed = await self._win(call, key, token, has_room)
        if confirmed is None:
            self._lost += 1
            yield False
            return
        self._won += 1
        try:
            async with task_nursery() as nursery:
                nursery.start_soon(self._keep, call, key, token, confirmed, name=f"claim of call {call.call_sid}")
                yield True
        finally:
            with trio.move_on_after(LAST_WORD_SECONDS, shield=True), contextlib.suppress(FleetError):
                if call.state is CallState.PENDING:
                    await self._link.script(_GIVE_BACK, [key], [token])
                elif not call.released:
                    await self._settle(key, token)

    async def _win(self, call: Claimed, key: str, token: str, has_room: Callable[[], bool]) -> float | None:
        """When the claim was made that succeeded; None where the call is somebody else's."""
        until = trio.current_time() + LOOK_SECONDS
        while call.state is CallState.PENDING and trio.current_time() < until:
            # One by one, so that what one of them takes counts for the others' room. Nothing waits from here to where
            # the caller counts the call.
            async with self._claiming:
                if has_room() and call.state is CallState.PENDING:
                    began = trio.current_time()
                    holder = await self._try(key, token)
                    if holder == _OURS and call.state is CallState.PENDING:
                        return began
                    if holder == _OURS:
                        with contextlib.suppress(FleetError):
                            await self._link.script(_GIVE_BACK, [key], [token])
                    if holder in (_OURS, _TAKEN):
                        return None
            with trio.move_on_after(LOOK_INTERVAL), contextlib.suppress(CallError, ConnectionLost):
                await call.wait_answered()  # by another, or it is over
        return None

    async def _try(self, key: str, token: str, *, within: float | None = None) -> bytes | None:
        """Who has the call now; None where Redis is out of reach."""
        milliseconds = int(1000 * self._claim_seconds)
        try:
            holder: bytes = await self._link.script(_CLAIM, [key], [token, milliseconds], within=within)
        except FleetError:
            return None
        return holder

    async def _keep(self, call: Claimed, key: str, token: str, confirmed: float) -> None:
        """Renew the claim until the call is answered, and then have it known as taken."""
        while call.state is CallState.PENDING:
            lapses = confirmed + TRUSTED_SHARE * self._claim_seconds
            with trio.move_on_at(min(trio.current_time() + self._claim_seconds / 3, lapses)):
                with contextlib.suppress(CallError, ConnectionLost):
                    await call.wait_answered()
            if call.state is not CallState.PENDING:
                break
            began = trio.current_time()
            holder = await self._try(key, token, within=max(0.0, lapses - began))
            if holder == _OURS:
                confirmed = began
            elif holder is not None or trio.current_time() >= lapses:
                self._lapsed += 1
                log.warning("call %s: the claim could not be renewed; it is left to others", call.call_sid)
                call.release()
        while not call.released:
            with contextlib.suppress(FleetError):
                await self._settle(key, token)
                return
            await trio.sleep(RETRY)

    async def _settle(self, key: str, token: str) -> None:
        await self._link.script(_SETTLE, [key], [token, TAKEN_SECONDS])

    # -- records ----------------------------------------------------------------------------------------------------

    def attach(self, hub: Hub) -> None:
        """Send every record of ``hub`` from now on to the fleet's stream, as a run of its own."""
        run = f"{self.worker}:{time.time_ns()}"
        self._detach.append(hub.attach(lambda record: self._take(run, record)))

    def _take(self, run: str, record: Record) -> None:
        text = json.dumps(record.as_json(), ensure_ascii=False, separators=(",", ":"))
        if self._bytes_waiting + len(text) + _OVERHEAD > self._max_waiting:
            self._dropped += 1
            if self._dropped == 1:
                log.error("fleet: %d bytes wait for Redis; records are being dropped", self._bytes_waiting)
            return
        self._bytes_waiting += len(text) + _OVERHEAD
        self._waiting.append((run, record.number, text))
        self._some_record.unpark_all()

    async def _send_records(self) -> None:
        """Send what waits, for ever."""
        while True:
            while not self._waiting:
                await self._some_record.park()
            await self._link.wait()
            run, batch = next(itertools.groupby(itertools.islice(self._waiting, BATCH), key=operator.itemgetter(0)))
            numbered = [(number, text) for _, number, text in batch]
            try:
                await append(
                    self._link,
                    self._name,
                    worker=self.worker,
                    run=run,
                    numbered=numbered,
                    keep=self._keep_records,
                )
            except FleetError:
                await trio.sleep(RETRY)
                continue
            for _ in numbered:
                self._bytes_waiting -= len(self._waiting.popleft()[2]) + _OVERHEAD
            self._sent += len(numbered)
            self._some_sent.unpark_all()

    async def consume(
        self,
        group: str,
        handle: Callable[[Shipped], Awaitable[None]],
        *,
        takeover_seconds: float = 30.0,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Call ``handle`` with the records of all workers, from the oldest that the stream has; until cancelled.

        Workers that consume for the same ``group`` share the records among them. A record counts as done when
        ``handle`` has returned. One that a worker has had for ``takeover_seconds`` without being done with it goes to
        another: so each is handled at least once, and twice only where its worker died, or took so long, in between.
        What ``handle`` raises is raised; the record is then handled again, by whoever comes next. Waits while Redis is
        gone.
        """

        async def made(worker: str, run: str, record: Record) -> None:
            await handle(Shipped(worker=worker, run=run, record=record))

        await consume(
            self._link,
            self._name,
            group=group,
            consumer=f"{self.worker}:{next(self._consumers)}",
            handle=made,
            takeover_seconds=takeover_seconds,
            task_status=task_status,
        )

    async def flush(self) -> None:
        """Wait until everything published so far is in the stream. Cancelled, it is sent all the same."""
        await trio.lowlevel.checkpoint()
        goal = self._sent + len(self._waiting)
        while self._sent < goal:
            await self._some_sent.park()

    # -- campaigns --------------------------------------------------------------------------------------------------

    def numbers(self, campaign: str, *, takeover_seconds: float = 15.0) -> Numbers:
        """The numbers of a campaign of that name, shared among all workers that ask for it.

        A worker asks once. Numbers of a worker that is silent for ``takeover_seconds`` go to another.
        """
        key = f"{self._name}:campaign:{campaign}"
        numbers = Numbers(self._link, key, self.worker, takeover_seconds=takeover_seconds)
        self._services.start_soon(numbers.keep, name=f"numbers of {campaign}")
        return numbers

    async def _close(self) -> None:
        for detach in self._detach:
            detach()
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await self.flush()
        if self._waiting:
            log.error("fleet: %d records could not be sent", len(self._waiting))


@contextlib.asynccontextmanager
async def open_fleet(
    url: str,
    *,
    name: str = "agentao",
    worker: str | None = None,
    claim_seconds: float = 5.0,
    max_waiting: int = 64 << 20,
    keep_records: int = 1_000_000,
) -> AsyncIterator[Fleet]:
    """Join the fleet ``name`` at a Redis, ``redis://HOST:PORT`` or ``rediss://…``, and yield this worker's part in it.

    ``worker`` has to be unique; without one it is made of the host, the process and chance. ``claim_seconds`` is how
    long a dead worker's calls wait for another. ``max_waiting`` bytes of records may wait for Redis, and its stream
    keeps about ``keep_records``. Raises :class:`FleetError` where Redis cannot be reached within 10 s; later losses are
    waited out. Leaving, also by cancellation, takes up to 3 s to send what waits.
    """
    link = RedisLink(url)
    unreachable = False
    async with service_nursery() as services:
        fleet = Fleet(
            link,
            services,
            name=name,
            worker=worker or f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}",
            claim_seconds=claim_seconds,
            max_waiting=max_waiting,
            keep_records=keep_records,
        )
        # They outlive the block's cancellation: calls that are being drained still renew their claims.
        services.start_soon(link.run, name="Redis")
        with trio.move_on_after(OPEN_SECONDS):
            await link.wait()
        unreachable = not link.connected
        if not unreachable:
            services.start_soon(fleet._send_records, name="records to Redis")
            try:
                yield fleet
            finally:
                await fleet._close()
    if unreachable:  # raised outside the nursery, which would wrap it in a group
        raise FleetError(f"{_without_password(url)} cannot be reached within {OPEN_SECONDS:g} s: {link.failure}")


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
