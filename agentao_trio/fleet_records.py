"""Records in a stream of Redis: appended once each, and read by groups that share them."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import trio

from agentao_trio.fleet_link import FleetError, RedisLink
from agentao_trio.records import Record

if TYPE_CHECKING:
    import coredis

__all__ = ["append", "consume"]

log: logging.Logger = logging.getLogger("agentao_trio.fleet")

#: Records taken at a time, milliseconds to wait for some, and seconds before another attempt.
_TOGETHER, _BLOCK_MS, _RETRY = 50, 1000, 0.2

# What an earlier attempt appended before its answer was lost is not appended again: a run's numbers only go up.
_APPEND = """
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
for index = 4, #ARGV, 2 do
    local number = tonumber(ARGV[index])
    if number > last then
        redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*',
            'worker', ARGV[2], 'run', ARGV[1], 'record', ARGV[index + 1])
        last = number
    end
end
redis.call('SET', KEYS[2], last, 'EX', 86400)
"""


async def append(
    link: RedisLink, name: str, *, worker: str, run: str, numbered: Sequence[tuple[int, str]], keep: int
) -> None:
    """Append records of one run, in order. Raises :class:`FleetError`, after which it may be repeated."""
    arguments: list[Any] = [run, worker, keep]
    for number, text in numbered:
        arguments += [number, text]
    await link.script(_APPEND, [f"{name}:records", f"{name}:run:{run}"], arguments)


async def consume(
    link: RedisLink,
    name: str,
    *,
    group: str,
    consumer: str,
    handle: Callable[[str, str, Record], Awaitable[None]],
    takeover_seconds: float,
    task_status: trio.TaskStatus[None],
) -> None:
    """See :meth:`agentao_trio.fleet.Fleet.consume`."""
    stream = f"{name}:records"
    connection = 0
    look_at = 0.0
    while True:
        await link.wait()
        try:
            if connection != link.connections:  # Redis may have come back without its memory
                connection = link.connections
                await link.join_group(stream, group)
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                # What we were given before, and its delivery or our answer to it was lost.
                while again := await _read(link, stream, group, consumer, "0"):
                    await _handle(link, stream, group, again, handle)
            if trio.current_time() >= look_at:
                look_at = trio.current_time() + takeover_seconds / 3
                await _handle(
                    link, stream, group, await _abandoned(link, stream, group, consumer, takeover_seconds), handle
                )
            await _handle(link, stream, group, await _read(link, stream, group, consumer, ">"), handle)
        except FleetError:
            connection = 0
            await trio.sleep(_RETRY)


async def _abandoned(link: RedisLink, stream: str, group: str, consumer: str, idle: float) -> Sequence[Any]:
    async def command(redis: coredis.Redis[bytes]) -> Any:
        return await redis.xautoclaim(stream, group, consumer, int(1000 * idle), "0-0", count=_TOGETHER)

    found = await link.do(command)
    return found[1] or ()


async def _read(link: RedisLink, stream: str, group: str, consumer: str, after: str) -> Sequence[Any]:
    async def command(redis: coredis.Redis[bytes]) -> Any:
        return await redis.xreadgroup(group, consumer, streams={stream: after}, count=_TOGETHER, block=_BLOCK_MS)

    found = await link.do(command)
    return next(iter(found.values())) if found else ()


async def _handle(
    link: RedisLink,
    stream: str,
    group: str,
    entries: Sequence[Any],
    handle: Callable[[str, str, Record], Awaitable[None]],
) -> None:
    for entry in entries:
        fields = entry.field_values
        try:
            record = Record.from_json(json.loads(fields[b"record"]))
            worker, run = fields[b"worker"].decode(), fields[b"run"].decode()
        except (KeyError, ValueError) as error:
            log.warning("an entry of %s is no record and is passed over: %s", stream, error)
        else:
            await handle(worker, run, record)

        async def done(redis: coredis.Redis[bytes], entry: Any = entry) -> None:
            await redis.xack(stream, group, [entry.identifier])

        await link.do(done)
