"""The numbers of a campaign, shared: each is called by one of many workers, and a dead worker's come back.

::

    numbers = fleet.numbers("spring")
    await numbers.load(rows)                      # by each of them; the first one's count
    async for number in numbers:
        result = await Campaign(session, [number.row], greet, trunk_id="main").run()
        await number.settle(result.rows[0].outcome)

A worker has a number from when it takes it until it settles it, and renews that by itself. A number whose worker is
silent for ``takeover_seconds`` goes to another. It may have been in the middle of a call: ``taken_before`` says so, and
who must not call anybody twice settles such a number without calling it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import attrs
import trio

from agentao_trio.campaign_numbers import CampaignRow
from agentao_trio.fleet_link import FleetError, RedisLink

if TYPE_CHECKING:
    import coredis

__all__ = ["Number", "Numbers"]

_GROUP = "workers"
#: Seconds between two looks for a number, and before another attempt.
_LOOK, _RETRY = 0.5, 0.2

_LOAD = """
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
for index = 1, #ARGV do redis.call('XADD', KEYS[1], '*', 'row', ARGV[index]) end
redis.call('SET', KEYS[2], #ARGV)
return #ARGV
"""
_SETTLE = """
redis.call('HSETNX', KEYS[2], ARGV[2], ARGV[3])
return redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
"""


@attrs.define(eq=False, kw_only=True)
class Number:
    """One number that this worker has. Settle it when it has been called."""

    row: CampaignRow
    #: Workers that had it before and did not settle it: they may have called it.
    taken_before: int
    _numbers: Numbers
    _identifier: bytes

    async def settle(self, outcome: str) -> None:
        """It is done with, and this is what became of it. The first outcome of a number counts.

        Waits while Redis is gone. Cancelled, it may or may not be settled.
        """
        await self._numbers._settle(self._identifier, outcome)


class Numbers:
    """A campaign's numbers: an async iterator over those that this worker is to call.

    Ends when every number is settled, by whomever. Any number of tasks may share it: as many as are to call at a time.
    Waits while Redis is gone, and raises :class:`FleetError` where nobody has loaded any. Cancelled in between, a
    number may have been taken that nobody calls: it comes back like a dead worker's.
    """

    def __init__(self, link: RedisLink, key: str, worker: str, *, takeover_seconds: float) -> None:
        self._link = link
        self._rows, self._total, self._outcomes = f"{key}:rows", f"{key}:total", f"{key}:outcomes"
        self._worker = worker
        self._takeover_seconds = takeover_seconds
        self._ours: set[bytes] = set()
        self._connection = 0

    def __repr__(self) -> str:
        return f"<Numbers {self._rows.removesuffix(':rows')} as {self._worker}, {len(self._ours)} in hand>"

    async def load(self, rows: Sequence[CampaignRow]) -> int:
        """Make these the campaign's numbers, unless it has some already. Returns how many were loaded.

        Rows that are the second of a duplicate are left out. Raises :class:`FleetError`.
        """
        fields = (attrs.asdict(row, recurse=False) | {"data": dict(row.data)} for row in rows if not row.duplicate_of)
        loaded: int = await self._link.script(_LOAD, [self._rows, self._total], [json.dumps(each) for each in fields])
        return loaded

    async def outcomes(self) -> Mapping[str, int]:
        """How many numbers were settled with which outcome. Raises :class:`FleetError`."""

        async def command(redis: coredis.Redis[bytes]) -> Any:
            return await redis.hvals(self._outcomes)

        counts: dict[str, int] = {}
        for outcome in await self._link.do(command):
            name = outcome.decode(errors="replace")
            counts[name] = counts.get(name, 0) + 1
        return counts

    async def unsettled(self) -> int:
        """How many numbers are not settled. Raises :class:`FleetError`, also for a campaign that has no numbers."""
        left = await self._left()
        if left is None:
            raise FleetError("this campaign has no numbers: they were never loaded, or Redis has forgotten them")
        return left

    async def _left(self) -> int | None:
        async def command(redis: coredis.Redis[bytes]) -> int | None:
            total = await redis.get(self._total)
            return None if total is None else int(total) - await redis.hlen(self._outcomes)

        return await self._link.do(command)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Number:
        while True:
            await self._link.wait()
            try:
                if self._connection != self._link.connections:
                    self._connection = self._link.connections
                    await self._link.join_group(self._rows, _GROUP)
                number = await self._take()
                if number is not None:
                    self._ours.add(number._identifier)
                    return number
                left = await self._left()
            except FleetError:
                self._connection = 0
            else:
                if left is None:
                    await self.unsettled()  # says what is wrong
                if left == 0:
                    raise StopAsyncIteration
            await trio.sleep(_LOOK)

    async def _take(self) -> Number | None:
        async def fresh(redis: coredis.Redis[bytes]) -> Any:
            return await redis.xreadgroup(_GROUP, self._worker, streams={self._rows: ">"}, count=1)

        if found := await self._link.do(fresh):
            [entry] = next(iter(found.values()))
            return self._number(entry, 0)
        return await self._link.do(self._abandoned)

    async def _abandoned(self, redis: coredis.Redis[bytes]) -> Number | None:
        idle = int(1000 * self._takeover_seconds)
        found: Any = await redis.xpending(self._rows, _GROUP, idle=idle, start="-", end="+", count=1)
        for pending in found:
            claimed = await redis.xclaim(self._rows, _GROUP, self._worker, idle, [pending.identifier])
            for entry in claimed:  # none, where another was faster
                return self._number(entry, pending.delivered)
        return None

    def _number(self, entry: Any, before: int) -> Number:
        row = CampaignRow(**json.loads(entry.field_values[b"row"]))
        return Number(row=row, taken_before=before, numbers=self, identifier=entry.identifier)

    async def keep(self) -> None:
        """Renew what this worker has, until cancelled."""
        while True:
            await trio.sleep(self._takeover_seconds / 3)
            if self._ours:
                await self._renew()

    async def _settle(self, identifier: bytes, outcome: str) -> None:
        while True:
            await self._link.wait()
            try:
                keys = [self._rows, self._outcomes]
                await self._link.script(_SETTLE, keys, [_GROUP, identifier, outcome])
            except FleetError:
                await trio.sleep(_RETRY)
                continue
            self._ours.discard(identifier)
            return

    async def _renew(self) -> None:
        async def command(redis: coredis.Redis[bytes]) -> None:
            await redis.xclaim(self._rows, _GROUP, self._worker, 0, sorted(self._ours), justid=True)

        with contextlib.suppress(FleetError):  # it will be tried again
            await self._link.do(command)
