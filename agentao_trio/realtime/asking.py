"""Who asked the server for what, what came of it, and asking once more.

An answer is matched by what it is about, a refusal by the client event it names. A response is asked for one at a time:
when one is active the wish waits for its end, also where only the server knew of it. What fails for a reason that may
pass is asked for again after a pause, as often as the budget allows; a response that succeeds fills the budget up. A
response that fails after it has begun is asked for again too, unless the caller speaks or another has begun.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping

import attrs
import trio

from agentao_trio.errors import ConnectionLost, RealtimeError, SessionClosed
from agentao_trio.realtime import protocol
from agentao_trio.realtime.failures import Budget, Remedy, of_error, of_response, refusal
from agentao_trio.realtime.protocol import (
    UNSET,
    ClientEvent,
    ErrorDetails,
    ErrorEvent,
    RateLimitsUpdated,
    Response,
    ResponseConfig,
    ResponseCreate,
    ResponseCreated,
    ResponseDone,
    ServerEvent,
)

__all__ = ["Asking"]

#: What is asked for, and what answers it; where both are about an item, it has to be the same one.
_ANSWERS: Mapping[type[ClientEvent], type[ServerEvent]] = {
    protocol.SessionUpdate: protocol.SessionUpdated,
    protocol.InputAudioBufferCommit: protocol.InputAudioBufferCommitted,
    protocol.InputAudioBufferClear: protocol.InputAudioBufferCleared,
    protocol.ConversationItemCreate: protocol.ConversationItemAdded,
    protocol.ConversationItemDelete: protocol.ConversationItemDeleted,
    protocol.ConversationItemRetrieve: protocol.ConversationItemRetrieved,
    protocol.ConversationItemTruncate: protocol.ConversationItemTruncated,
    protocol.ResponseCreate: protocol.ResponseCreated,
    protocol.ResponseCancel: protocol.ResponseDone,
}
#: What is asked for again in a new connection by itself, so that its answer still comes.
_SURVIVES = (protocol.ConversationItemCreate, protocol.ConversationItemDelete)


@attrs.define(eq=False)
class _Question:
    event: ClientEvent
    answered: trio.Event = attrs.field(factory=trio.Event)
    outcome: ServerEvent | Exception | None = None

    def settle(self, outcome: ServerEvent | Exception) -> None:
        if self.outcome is None:
            self.outcome = outcome
            self.answered.set()

    def is_answered_by(self, event: ServerEvent) -> bool:
        return isinstance(event, _ANSWERS[type(self.event)]) and _about(event) in ("", _about(self.event))


def _about(event: ClientEvent | ServerEvent) -> str:
    """The item that an event is about, "" where it is about none (or where it does not matter)."""
    if isinstance(event, protocol.InputAudioBufferCommitted):
        return ""
    item = getattr(event, "item", None)
    found = getattr(event, "item_id", "") if item is None else item.id
    return found if isinstance(found, str) else ""


class Asking:
    """The questions of one session. ``send`` queues an event, ``nursery`` runs what is asked for again."""

    def __init__(
        self,
        nursery: trio.Nursery,
        send: Callable[[ClientEvent], Awaitable[str]],
        counts: Counter[str],
        *,
        jitter: Callable[[], float],
    ) -> None:
        #: The response that is active in the conversation, as far as was told.
        self.active: str | None = None
        self.connected: bool = False
        self._nursery = nursery
        self._send = send
        self._counts = counts
        self._budget = Budget(jitter=jitter)
        self._questions: dict[str, _Question] = {}
        self._one_at_a_time = trio.Lock()
        self._changed = trio.lowlevel.ParkingLot()
        self._closed = False
        self._active_unknown = False
        self._answer_due = False
        self._asides = 0
        self._again: trio.CancelScope | None = None
        #: Responses asked for lately, with the id of the event: the server may still refuse them.
        self._lately: deque[tuple[str, ResponseCreate]] = deque(maxlen=16)

    @property
    def busy(self) -> bool:
        """Whether a response is active, or somebody waits for an answer, the caller included."""
        return (
            self.active is not None
            or self._active_unknown
            or self._answer_due
            or bool(self._questions)
            or self._again is not None
        )

    async def request(self, event: ClientEvent) -> ServerEvent:
        """Send an event that has an id, and wait for its answer. Raises ValueError for events that have none."""
        if type(event) not in _ANSWERS:
            raise ValueError(f"{event.TYPE} has no answer")
        event_id = str(event.event_id)
        question = self._questions[event_id] = _Question(event)
        try:
            await self._send(event)
            await question.answered.wait()
        finally:
            del self._questions[event_id]
        assert question.outcome is not None
        if isinstance(question.outcome, Exception):
            raise question.outcome
        return question.outcome

    async def create_response(self, config: ResponseConfig | None, new_id: Callable[[str], str]) -> str:
        """Ask for a response until one has begun; its id."""
        event = ResponseCreate(response=UNSET if config is None else config)
        if config is not None and config.conversation == "none":
            self._asides += 1
            return await self._ask(attrs.evolve(event, event_id=new_id("event")))
        async with self._one_at_a_time:
            self._stop_asking_again()
            while True:
                await self._until_idle()
                try:
                    return await self._ask(attrs.evolve(event, event_id=new_id("event")))
                except ConnectionLost:
                    continue  # the wish outlives the connection
                except RealtimeError as refused:
                    if of_error(ErrorDetails(code=refused.code)) is Remedy.WAIT:
                        self._active_unknown = self.active is None
                        continue
                    if not refused.retryable or self._budget.exhausted:
                        raise
                    await trio.sleep(self._budget.pause())

    async def _ask(self, event: ResponseCreate) -> str:
        self._lately.append((str(event.event_id), event))
        created = await self.request(event)
        assert isinstance(created, ResponseCreated)
        return created.response.id or ""

    async def _until_idle(self) -> None:
        await trio.lowlevel.checkpoint()
        while self.active is not None or self._active_unknown or not self.connected:
            if self._closed:
                raise SessionClosed("the session with the model is over")
            await self._changed.park()

    # -- what the server says ---------------------------------------------------------------------------------------

    def heard(self, event: ServerEvent) -> None:
        """Note an event of the server. Never waits."""
        match event:
            case ResponseCreated():
                self._began(event.response)
            case ResponseDone():
                self._ended(event.response)
            case protocol.InputAudioBufferSpeechStopped() | protocol.InputAudioBufferCommitted():
                self._answer_due = True
            case RateLimitsUpdated():
                self._budget.reset_seconds = max(
                    (limit.reset_seconds or 0.0 for limit in event.rate_limits), default=0.0
                )
            case ErrorEvent():
                self._refused(event.error)
        for question in self._questions.values():
            if question.outcome is None and question.is_answered_by(event):
                question.settle(event)
                break  # one answer for each
        self._changed.unpark_all()

    def caller_speaks(self) -> None:
        """The caller's turn will be answered; what failed before is not wanted any more."""
        self._stop_asking_again()

    def connection_made(self) -> None:
        """What waited for a connection can be asked for."""
        self.connected = True
        self._changed.unpark_all()

    def connection_lost(self, reason: str) -> None:
        """What was asked for in it has no answer, but for what is asked for again in the next."""
        self.active, self._active_unknown, self._answer_due, self._asides = None, False, False, 0
        self._stop_asking_again()
        for question in self._questions.values():
            if not isinstance(question.event, _SURVIVES):
                question.settle(ConnectionLost(f"{question.event.TYPE} was not answered: {reason}"))
        self._changed.unpark_all()

    def close(self) -> None:
        """The session is over."""
        self._closed = True
        self.connected = False
        self._stop_asking_again()
        for question in self._questions.values():
            question.settle(SessionClosed("the session with the model is over"))
        self._changed.unpark_all()

    def _began(self, response: Response) -> None:
        if response.conversation_id is None and self._asides:
            return
        self.active, self._active_unknown, self._answer_due = response.id or "", False, False
        self._stop_asking_again()

    def _ended(self, response: Response) -> None:
        if self.active is not None and response.id not in (self.active, None):
            self._asides = max(0, self._asides - 1)
            return
        self.active, self._active_unknown = None, False
        if response.status == "completed":
            self._budget.succeeded()
        if of_response(response) is Remedy.RETRY:
            asked = next((event for _, event in reversed(self._lately)), ResponseCreate())
            self._ask_again(asked, after=self._budget.pause)

    def _refused(self, error: ErrorDetails) -> None:
        remedy = of_error(error)
        self._counts["harmless_errors"] += remedy is Remedy.IGNORE
        question = self._questions.get(error.event_id or "")
        if question is not None:
            question.settle(refusal(error))
            return
        if not error.event_id and self._answer_due and remedy is Remedy.RETRY:
            # The server was about to answer the caller by itself.
            self._ask_again(ResponseCreate(), after=self._budget.pause)
        for event_id, event in self._lately:
            if event_id == error.event_id and remedy is Remedy.WAIT:
                # What had begun was the server's own response; ours is still wanted, once that is over.
                self._ask_again(event, after=lambda: 0.0)
                return

    # -- asking once more -------------------------------------------------------------------------------------------

    def _ask_again(self, event: ResponseCreate, *, after: Callable[[], float]) -> None:
        if self._budget.exhausted or self._again is not None:
            return
        self._again = trio.CancelScope()
        self._counts["retries"] += 1
        self._nursery.start_soon(self._later, event, after(), self._again, name="realtime response, once more")

    async def _later(self, event: ResponseCreate, seconds: float, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(seconds)
            await self._until_idle()
            self._again = None
            self._lately.append((await self._send(attrs.evolve(event, event_id=UNSET)), event))

    def _stop_asking_again(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
