"""Calls that come in: found by event or by asking, surfaced exactly once.

Theory of operation
-------------------
Two things tell of an inbound call (PROTOCOL section 13.3): a CHANNEL_CREATE for a ``call_sid`` nobody here knows, and
GetIncomingCalls, asked per configured trunk. Only the second names the caller, and only the first comes at once. So an
event makes us ask at once instead of at the next interval, and a call is taken from the events alone where asking tells
nothing: asking after the event, since an answer that was under way when it came cannot list the call. A round in which
a trunk gave no answer has told nothing of that: the next one decides, with or without an answer.

An unknown ``call_sid`` may also belong to a call of our own whose Originate is not answered yet, or to a row of a bulk
campaign. While the former is possible nothing is taken from events alone; once this session has started a campaign,
only what GetIncomingCalls lists counts as inbound.

Calls wait in one bounded queue, each for one taker. A call that finds it full is left with the gateway and looked for
again when one was taken.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator

import trio

from agentao_trio.call import ActiveCall
from agentao_trio.callstate import CallState
from agentao_trio.errors import CommandError, CommandRejected, RemoteProtocolError, SessionClosed
from agentao_trio.messages import IncomingCallInfo

__all__ = ["InboundCalls"]

log: logging.Logger = logging.getLogger("agentao_trio.session")

#: Seconds that an answer may take at least, however short the interval is.
POLL_SECONDS = 3.0
#: Calls that wait to be taken, and names of calls that are remembered so as not to surface twice.
WAITING_CALLS, REMEMBERED_CALLS = 256, 20_000


class InboundCalls:
    """An async iterator over the calls that come in; many tasks may share it, each call goes to one of them.

    Ends when the session closes. Cancelling a waiting ``__anext__`` loses nothing.
    """

    def __init__(
        self,
        counts: Counter[str],
        *,
        trunks: Collection[str],
        interval: float,
        ask: Callable[[str], Awaitable[Iterable[IncomingCallInfo]]],
        unclaimed: Callable[[tuple[str, ...]], list[str]],
        take: Callable[[str, str, str], ActiveCall],
    ) -> None:
        #: Calls are being looked for.
        self.looking = False
        #: Campaigns that the gateway may have taken on: only what GetIncomingCalls lists is inbound then.
        self.campaigns = 0
        self._counts = counts
        self._trunks = tuple(trunks)
        self._interval = interval
        self._ask = ask
        self._unclaimed = unclaimed
        self._take = take
        self._surfaced: OrderedDict[str, None] = OrderedDict()
        self._wake = trio.Event()
        self._ended = False
        self._postponed = False
        self._placing = 0  # Originates of ours that have not been answered yet
        self._send, self._receive = trio.open_memory_channel[ActiveCall](WAITING_CALLS)

    def __aiter__(self) -> InboundCalls:
        return self

    async def __anext__(self) -> ActiveCall:
        while True:
            try:
                call = await self._receive.receive()
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
            if self._postponed:
                self._postponed = False
                self.look()
            if call.state is not CallState.DISCONNECTED:  # the caller may have given up meanwhile
                return call

    def look(self) -> None:
        """Something was heard that may be an inbound call."""
        self._wake.set()

    @contextlib.contextmanager
    def placing(self) -> Iterator[None]:
        """While this block is run, a call that nobody here knows may be one of ours."""
        self._placing += 1
        try:
            yield
        finally:
            self._placing -= 1
            self.look()

    def end(self) -> None:
        """Take no further calls: the session is over, or being drained. Harmless when repeated.

        Calls that nobody has taken, also of those that wait for it, stay with the gateway, and are over here.
        """
        self._ended = True
        self._send.close()
        while self._receive.statistics().current_buffer_used:
            self._receive.receive_nowait().release()
        self._wake.set()
        if self.looking and not self._placing and not self.campaigns:
            for call_sid in self._unclaimed(self._trunks):
                self._take(call_sid, "", "").release()

    async def run(self) -> None:
        """Ask each trunk once per interval, and at once when there is reason to. Runs until cancelled or ended."""
        asked_in_vain = frozenset[str]()  # calls that the round before was to tell of, which had no answer
        while not self._ended:
            announced = frozenset(self._unclaimed(self._trunks))
            answers = [await self._poll(trunk_id) for trunk_id in self._trunks]
            decided = announced if all(answers) else asked_in_vain
            asked_in_vain = announced - decided
            if not self._placing and not self.campaigns:
                for call_sid in self._unclaimed(self._trunks):
                    if call_sid in decided:
                        self._surface(call_sid)
            with trio.move_on_after(self._interval if self._trunks else float("inf")):
                await self._wake.wait()
            if not self._ended:
                self._wake = trio.Event()

    async def _poll(self, trunk_id: str) -> bool:
        """Whether there was an answer. A refusal is one: of such a gateway no more can be learned."""
        patience = max(self._interval, POLL_SECONDS)
        try:
            with trio.move_on_after(patience):
                for info in await self._ask(trunk_id):
                    self._surface(info.call_sid, info.call_from, trunk_id)
                return True
            log.info("trunk %s did not tell of incoming calls within %g s", trunk_id, patience)
        except SessionClosed:
            self._ended = True
        except (CommandError, RemoteProtocolError) as error:
            log.warning("asking trunk %s for incoming calls failed: %s", trunk_id, error)
            return isinstance(error, CommandRejected)
        return False

    def _surface(self, call_sid: str, caller: str = "", trunk_id: str = "") -> None:
        if self._ended or call_sid in self._surfaced:
            return
        if self._send.statistics().current_buffer_used >= WAITING_CALLS:
            self._counts["incoming_postponed"] += 1
            self._postponed = True
            return
        self._surfaced[call_sid] = None
        if len(self._surfaced) > REMEMBERED_CALLS:
            self._surfaced.popitem(last=False)
        self._send.send_nowait(self._take(call_sid, caller, trunk_id))
