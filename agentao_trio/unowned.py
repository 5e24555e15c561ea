"""What a session still has to do for calls that nobody here wants: learn their names, and hang them up.

Theory of operation
-------------------
Both go on in the background, beyond the cancellation of whoever gave the call up. A gateway may name calls itself, and
then only its reply to Originate says which call has to be hung up: so an Originate that was sent is waited for, whoever
is interested (:class:`Placing`). A Terminate is repeated for as long as nobody has answered it (:class:`Hangups`): a
quiet call never shows that it lives on. A session that closes waits for both, for a moment.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import trio

from agentao_trio.errors import AgentaoError, CommandTimeout

__all__ = ["Hangups", "Placing"]

log: logging.Logger = logging.getLogger("agentao_trio.session")


class Placing:
    """One Originate on its way. ``command`` sends it, and raises where it fails; ``named`` is called with the name in
    its reply, which may be empty."""

    def __init__(self, command: Callable[[], Awaitable[Any]], named: Callable[[str], None]) -> None:
        #: There was a reply, and it was no refusal.
        self.is_answered: bool = False
        self._command = command
        self._named = named
        self._scope = trio.CancelScope()
        self._failure: AgentaoError | None = None
        self._is_over = trio.Event()

    async def run(self) -> None:
        """Send it and wait for the reply."""
        try:
            with self._scope:
                if (reply := await self._command()) is not None:
                    self._named(reply.call_sid)
                    self.is_answered = True
        except AgentaoError as failure:
            self._failure = failure
        finally:
            self._is_over.set()

    async def wait(self) -> None:
        """Wait for the end of it and raise what it failed with. Cancelled, the Originate goes on."""
        await self._is_over.wait()
        if self._failure is not None:
            raise self._failure

    def abandon(self) -> None:
        """There is nothing to be learned from the reply."""
        self._scope.cancel()


class Hangups:
    """``terminate`` sends one Terminate and returns what went wrong, or None; ``may_live`` says whether a call of that
    name has not been heard to end. For ``patience`` seconds it is tried again."""

    def __init__(
        self,
        terminate: Callable[[str], Awaitable[AgentaoError | None]],
        may_live: Callable[[str], bool],
        patience: float,
    ) -> None:
        self._terminate = terminate
        self._may_live = may_live
        self._patience = patience
        self._under_way = 0
        self._one_less = trio.lowlevel.ParkingLot()

    @contextlib.contextmanager
    def waited_for(self) -> Iterator[None]:
        """What happens in this block is waited for by :meth:`settle`."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._one_less.unpark_all()

    async def hang_up(self, call_sid: str, seconds: float) -> None:
        """Hang a call up after so many seconds, if it is still needed then."""
        if seconds:
            await trio.sleep(seconds)
            if not self._may_live(call_sid):
                return
        # What an outage swallowed is repeated. Twice does no harm.
        with self.waited_for(), trio.move_on_after(self._patience):
            while (why := await self._terminate(call_sid)) is not None:
                log.info("call %s is still being hung up: %s", call_sid, why)
                if not isinstance(why, CommandTimeout) or not self._may_live(call_sid):
                    break

    async def settle(self, worth_waiting: Callable[[], bool]) -> None:
        """Wait until nothing is under way any more, or not worth waiting for."""
        await trio.lowlevel.checkpoint()  # those that were started a moment ago get to count themselves
        while self._under_way and worth_waiting():
            await self._one_less.park()
            await trio.lowlevel.checkpoint()
