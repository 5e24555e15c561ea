"""A connection to Redis that comes and goes, for the one program that keeps it. Needs the extra ``redis``.

One task owns the client: it opens it, pings it, and opens another when it fails. Commands of other tasks use the
client of the moment, each with a limit of its own; they fail with :class:`FleetError` where there is none, or where it
is lost under them. This is the one place that knows what coredis raises.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

try:
    import anyio  # beneath coredis, which lets some of its errors through
    import coredis
    from coredis.exceptions import RedisError, ResponseError, StreamDuplicateConsumerGroupError
    from coredis.retry import NoRetryPolicy
except ModuleNotFoundError as _missing:
    raise ModuleNotFoundError(
        "agentao_trio.fleet needs the extra 'redis': pip install 'agentao-trio[redis]'", name=_missing.name
    ) from _missing

from agentao_trio.errors import AgentaoError
from agentao_trio.services import first_leaf

__all__ = ["FleetError", "RedisLink"]

log: logging.Logger = logging.getLogger("agentao_trio.fleet")

#: Seconds for one command, between two signs of life, and the pauses before another attempt to connect.
EXCHANGE_SECONDS = 5.0
PING_INTERVAL = 1.0
PAUSE, LONGEST_PAUSE = 0.1, 2.0

T = TypeVar("T")


class FleetError(AgentaoError):
    """Redis is out of reach, or refused a command."""


class RedisLink:
    """The connection."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._redis: coredis.Redis[bytes] | None = None
        self._came = trio.lowlevel.ParkingLot()
        self._doubtful = trio.Event()
        self._scopes: set[trio.CancelScope] = set()
        #: How often there was a connection, and why there is none.
        self.connections: int = 0
        self.failure: str = ""

    def __repr__(self) -> str:
        state = "connected" if self.connected else f"not connected: {self.failure}" if self.failure else "not connected"
        return f"<RedisLink {state}, {self.connections} connections so far>"

    @property
    def connected(self) -> bool:
        """Whether Redis is in reach, as far as we know."""
        return self._redis is not None

    async def wait(self) -> None:
        """Wait until Redis is in reach. Cancellation changes nothing."""
        await trio.lowlevel.checkpoint()
        while self._redis is None:
            await self._came.park()

    async def run(self) -> None:
        """Keep a connection, until cancelled."""
        pause = PAUSE
        while True:
            before = self.connections
            try:
                client = coredis.Redis.from_url(
                    self._url, connect_timeout=EXCHANGE_SECONDS, retry_policy=NoRetryPolicy()
                )
                async with client as redis:
                    await self._watch(redis)
            except* (RedisError, OSError, trio.TooSlowError) as group:
                self._lost(first_leaf(group))
            pause = PAUSE if self.connections > before else min(2 * pause, LONGEST_PAUSE)
            await trio.sleep(pause)

    async def _watch(self, redis: coredis.Redis[bytes]) -> None:
        """Returns never; raises when a ping is not answered."""
        try:
            while True:
                self._doubtful = trio.Event()
                with trio.fail_after(EXCHANGE_SECONDS):
                    await redis.ping()
                if self._redis is None:
                    self.connections += 1
                    self.failure = ""
                    self._redis = redis
                    self._came.unpark_all()
                with trio.move_on_after(PING_INTERVAL):
                    await self._doubtful.wait()
        finally:
            self._redis = None
            for scope in self._scopes:
                scope.cancel()

    def _lost(self, error: BaseException) -> None:
        if not self.failure:
            log.warning("Redis is out of reach: %s", _in_words(error))
        self.failure = _in_words(error)

    async def do(self, command: Callable[[coredis.Redis[bytes]], Awaitable[T]], *, within: float | None = None) -> T:
        """The result of one command. Raises :class:`FleetError` for one that failed, or took more than ``within``
        seconds. Cancelled, or failed, it may or may not have been carried out."""
        redis = self._redis
        if redis is None:
            await trio.lowlevel.checkpoint()
            raise FleetError(f"Redis is out of reach: {self.failure or 'not connected yet'}")
        with trio.move_on_after(EXCHANGE_SECONDS if within is None else within) as scope:
            self._scopes.add(scope)
            try:
                return await command(redis)
            except ResponseError as error:
                raise FleetError(f"Redis refused a command: {error}") from error
            except (RedisError, OSError, anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
                self._doubtful.set()
                raise FleetError(f"Redis is out of reach: {_in_words(error)}") from error
            except RuntimeError as error:
                if self._redis is redis:
                    raise
                # What coredis says when its pool was closed while the command waited for a connection.
                raise FleetError("Redis was lost before it took the command") from error
            finally:
                self._scopes.discard(scope)
        self._doubtful.set()
        raise FleetError("Redis did not answer in time, or was lost")

    async def script(self, text: str, keys: list[str], arguments: list[Any], *, within: float | None = None) -> Any:
        """What a Lua script returns; as :meth:`do`."""

        async def command(redis: coredis.Redis[bytes]) -> Any:
            return await redis.eval(text, keys=keys, args=arguments)

        return await self.do(command, within=within)

    async def join_group(self, stream: str, group: str) -> None:
        """Make the consumer group, and the stream, unless they are there; as :meth:`do`."""

        async def command(redis: coredis.Redis[bytes]) -> None:
            with contextlib.suppress(StreamDuplicateConsumerGroupError):
                await redis.xgroup_create(stream, group, identifier="0", mkstream=True)

        await self.do(command)


def _in_words(error: BaseException) -> str:
    return str(error) or type(error).__name__
