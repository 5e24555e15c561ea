"""Calling a list of numbers from this side: at a pace, so many at a time, again after busy and no answer.

::

    rows = read_numbers(Path("numbers.csv").read_bytes())
    campaign = Campaign(session, rows, greet, trunk_id="main", calls_per_second=2, max_concurrent=20)
    result = await campaign.run()

Theory of operation
-------------------
:class:`~agentao_trio.campaign_plan.CampaignPlan` keeps the books. One task places the calls, each at its place on an
absolute grid of ``calls_per_second``; each attempt has a task of its own, from Originate to the end of the call. The
call is hung up when its handler returns.

Every row ends with exactly one outcome, whatever happens: also when the campaign is cancelled, or brought down by an
error that is nobody's in particular. :meth:`Campaign.result` tells them at any time, afterwards too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from functools import partial
from types import MappingProxyType
from typing import Any

import attrs
import trio

from agentao_trio.broadcast import Broadcast, Subscription
from agentao_trio.call import ActiveCall
from agentao_trio.campaign_numbers import CampaignRow, read_numbers
from agentao_trio.campaign_plan import (
    Attempt,
    CampaignPlan,
    Outcome,
    OutcomeLine,
    Pace,
    RetryPolicy,
    RowResult,
    Turn,
    outcome_lines,
)
from agentao_trio.causes import NO_ANSWER
from agentao_trio.errors import (
    CallEnded,
    CallError,
    CommandRejected,
    CommandTimeout,
    ConnectionLost,
    LocalProtocolError,
    RemoteProtocolError,
)
from agentao_trio.events import CallEvent, ClientEvent
from agentao_trio.handlers import contained
from agentao_trio.session import Session
from agentao_trio.statistics import SessionState

__all__ = [
    "Attempt",
    "Campaign",
    "CampaignResult",
    "CampaignRow",
    "CampaignStatistics",
    "Outcome",
    "OutcomeLine",
    "Progress",
    "RetryPolicy",
    "RowResult",
    "Step",
    "read_numbers",
]

#: What is done with an answered call. The call is hung up when it returns.
Handler = Callable[[ActiveCall, CampaignRow], Awaitable[object]]

#: Seconds between two looks at a session that is reconnecting: calls are not placed into an outage.
RECONNECT_INTERVAL = 0.2


class Step(Enum):
    """What happened to a number."""

    QUEUED = "queued"
    PLACING = "placing"
    #: The gateway has taken the call on.
    RINGING = "ringing"
    ANSWERED = "answered"
    #: One attempt is over; ``outcome`` and ``cause`` tell how.
    ENDED = "ended"
    #: The number will be called again, at ``retry_at``, because of how the attempt ended.
    WAITING = "waiting"
    #: The number has its ``outcome``: it was reached, or given up.
    FINISHED = "finished"


@attrs.frozen(kw_only=True)
class Progress:
    """Something happened to a number. Times are in seconds since the campaign began."""

    at: float
    step: Step
    row: CampaignRow
    #: Which attempt this is about, counted from 1; 0 before the first.
    attempt: int = 0
    call_sid: str = ""
    outcome: Outcome | None = None
    #: The Q.850 cause, and its name or that of the gateway's error code.
    cause: int | None = None
    meaning: str = ""
    retry_at: float | None = None
    error: str = ""


@attrs.frozen(kw_only=True)
class CampaignStatistics:
    """How far a campaign has come, in numbers."""

    #: Not called yet, being called, and waiting for their next attempt.
    fresh: int
    calling: int
    waiting: int
    finished: int
    attempts: int
    #: The finished ones by outcome.
    outcomes: Mapping[Outcome, int]


@attrs.frozen(kw_only=True)
class CampaignResult:
    """What became of every row, in the order of the file. ``seconds`` is how long it took."""

    rows: tuple[RowResult, ...]
    seconds: float

    @property
    def outcomes(self) -> tuple[OutcomeLine, ...]:
        """The outcomes by Q.850 cause, the most frequent first: lines of a table."""
        return outcome_lines(self.rows)

    @property
    def attempts(self) -> int:
        """How many calls were placed, or tried to be."""
        return sum(len(result.attempts) for result in self.rows)

    @property
    def not_called(self) -> tuple[CampaignRow, ...]:
        """The rows that the campaign did not get to."""
        return tuple(result.row for result in self.rows if result.outcome is Outcome.NOT_CALLED)

    @property
    def complete(self) -> bool:
        """Whether nothing was left undone: no number was cut short or not called."""
        return not any(result.outcome in (Outcome.NOT_CALLED, Outcome.INTERRUPTED, None) for result in self.rows)


class Campaign:
    """Calls every one of ``rows`` over a session, and runs ``handler(call, row)`` for each that is answered.

    ``trunk_id`` and ``call_from`` are for rows that have none. At most ``calls_per_second`` calls are placed, evenly,
    and at most ``max_concurrent`` are in progress; a call that nobody has answered within ``answer_within`` seconds is
    hung up and counts as cause 19. ``retry`` says who is called again. ``options`` are those of
    :meth:`Session.originate`.

    A handler that raises fails its own number only, which is logged with its traceback, unless the session was opened
    with ``handler_errors="raise"``. Raises :class:`ValueError` for a row without a trunk and for numbers that make no
    sense.
    """

    def __init__(
        self,
        session: Session,
        rows: Sequence[CampaignRow],
        handler: Handler,
        *,
        trunk_id: str = "",
        call_from: str = "",
        calls_per_second: float = 1.0,
        max_concurrent: int = 10,
        answer_within: float = 60.0,
        retry: RetryPolicy | None = None,
        **options: Any,
    ) -> None:
        if max_concurrent < 1:
            raise ValueError(f"max_concurrent must be 1 or more, not {max_concurrent}")
        if not answer_within > 0:
            raise ValueError(f"answer_within must be more than 0 seconds, not {answer_within}")
        for row in rows:
            if not (row.trunk_id or trunk_id):
                raise ValueError(f"line {row.line}: {row.to} has no trunk, and neither has the campaign")
        self._session = session
        self._rows = tuple(rows)
        self._handler = handler
        self._trunk_id = trunk_id
        self._call_from = call_from
        self._pace = Pace(calls_per_second)
        self._max_concurrent = max_concurrent
        self._answer_within = answer_within
        self._options = options
        self._plan = CampaignPlan(self._rows, retry or RetryPolicy())
        self._progress: Broadcast[Progress] = Broadcast()
        self._began: float | None = None
        self._seconds: float | None = None
        self._changed = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        state = "over" if self._seconds is not None else "not begun" if self._began is None else "going on"
        return f"<Campaign {state}: {self._plan!r}>"

    async def run(self) -> CampaignResult:
        """Call everybody, and return what became of them when the last one is finished.

        Cancelled, all calls are hung up; :meth:`result` then tells who was not called or cut short. Raises
        :class:`SessionClosed` when the session ends first, and :class:`RuntimeError` when run twice.
        """
        if self._began is not None:
            raise RuntimeError("a campaign is run once; make another one")
        self._began = trio.current_time()
        for index, row in enumerate(self._rows):
            self._tell(Step.QUEUED, row)
            self._finish_if_done(index)
        try:
            async with trio.open_nursery() as nursery:
                await self._place_calls(nursery)
        finally:
            self.stop()
            self._seconds = self._now()
            self._progress.end()
        return self.result()

    def stop(self) -> None:
        """Place no further calls; those in progress go on, and :meth:`run` returns after the last of them.

        Harmless when repeated.
        """
        stopped = self._plan.stop()
        if self._began is not None:
            for index in stopped:
                self._finish_if_done(index)
        self._changed.unpark_all()

    def progress(self, *, bound: int = 10_000) -> Subscription[Progress]:
        """An async iterator over what happens from now on; ends with the campaign.

        A reader that leaves ``bound`` records unread loses the oldest, counted in its ``dropped``; :meth:`result` loses
        nothing.
        """
        return self._progress.subscribe(bound)

    def statistics(self) -> CampaignStatistics:
        """How far the campaign has come."""
        plan = self._plan
        return CampaignStatistics(
            fresh=plan.fresh,
            calling=plan.calling,
            waiting=plan.waiting,
            finished=plan.outcomes.total(),
            attempts=plan.attempts,
            outcomes=MappingProxyType(dict(plan.outcomes)),
        )

    def result(self) -> CampaignResult:
        """What has become of every row so far."""
        return CampaignResult(
            rows=self._plan.results(), seconds=self._now() if self._seconds is None else self._seconds
        )

    # -- placing calls --------------------------------------------------------------------------------------------

    async def _place_calls(self, nursery: trio.Nursery) -> None:
        """Start an attempt whenever there is somebody to call, room for the call, and its place on the grid."""
        plan, pace = self._plan, self._pace
        while True:
            due = plan.due_at()
            if due is None and not plan.calling:
                return
            if due is None or plan.calling >= self._max_concurrent:
                await self._changed.park()
                continue
            now, when = trio.current_time(), max(due, pace.next_at)
            if now < when:
                with trio.move_on_at(when):
                    await self._changed.park()
            elif self._session.state is SessionState.RECONNECTING:
                await trio.sleep(RECONNECT_INTERVAL)
            else:
                pace.placed(now)
                turn = plan.take(now)
                nursery.start_soon(self._attempt, turn, name=f"campaign call to {turn.row.to}")

    async def _attempt(self, turn: Turn) -> None:
        attempt = _OpenAttempt(self, turn)
        try:
            await attempt.run()
        finally:
            self._ended(turn, attempt.close())

    def _ended(self, turn: Turn, attempt: Attempt) -> None:
        retry_at = self._plan.ended(turn, attempt, trio.current_time())
        facts = {
            "attempt": turn.attempt,
            "call_sid": attempt.call_sid,
            "outcome": attempt.outcome,
            "cause": attempt.cause,
            "meaning": attempt.meaning,
            "error": attempt.error,
        }
        self._tell(Step.ENDED, turn.row, **facts)
        if retry_at is not None:
            self._tell(Step.WAITING, turn.row, retry_at=self._since_began(retry_at), **facts)
        self._finish_if_done(turn.index)
        self._changed.unpark_all()

    # -- telling --------------------------------------------------------------------------------------------------

    def _since_began(self, at: float) -> float:
        return 0.0 if self._began is None else at - self._began

    def _now(self) -> float:
        """Seconds since the campaign began; 0 before that."""
        return self._since_began(trio.current_time())

    def _finish_if_done(self, index: int) -> None:
        result = self._plan.result(index)
        if result.outcome is not None:
            self._tell(
                Step.FINISHED,
                result.row,
                attempt=len(result.attempts),
                outcome=result.outcome,
                cause=result.cause,
                meaning=result.meaning,
                error=result.error,
            )

    def _tell(self, step: Step, row: CampaignRow, **facts: Any) -> None:
        self._progress.publish(Progress(at=self._now(), step=step, row=row, **facts))


class _OpenAttempt:
    """One attempt while it goes on. Until it has another outcome it counts as interrupted."""

    def __init__(self, campaign: Campaign, turn: Turn) -> None:
        self._campaign = campaign
        self._row = turn.row
        now = campaign._now()
        self._so_far = Attempt(number=turn.attempt, began=now, ended=now, outcome=Outcome.INTERRUPTED)
        self._handler_error: Exception | None = None

    def close(self) -> Attempt:
        """The attempt as it stands, now over."""
        return attrs.evolve(self._so_far, ended=self._campaign._now())

    async def run(self) -> None:
        """Place the call and see it through."""
        self._tell(Step.PLACING)
        call = await self._originate()
        if call is None:
            return
        self._note(call_sid=call.call_sid)
        self._tell(Step.RINGING)
        try:
            async with call:
                in_time = await self._talk(call)
            await self._learn_the_end(call, in_time=in_time)
        finally:
            if self._handler_error is not None:
                # After the hangup, which is ours to do. Logs, or raises where the session was asked to.
                self._campaign._session.handler_failed(call, CallEvent.CALL_ANSWERED, self._handler_error)

    async def _originate(self) -> ActiveCall | None:
        campaign, row = self._campaign, self._row
        try:
            return await campaign._session.originate(
                row.to,
                trunk_id=row.trunk_id or campaign._trunk_id,
                call_from=row.call_from or campaign._call_from,
                **campaign._options,
            )
        except CommandRejected as error:
            self._note(outcome=Outcome.REJECTED, code=error.code, retryable=error.retryable, error=str(error))
        except LocalProtocolError as error:
            self._note(outcome=Outcome.REJECTED, error=str(error))
        except (CommandTimeout, RemoteProtocolError) as error:
            self._note(outcome=Outcome.UNKNOWN, error=str(error))
        return None

    async def _talk(self, call: ActiveCall) -> bool:
        """Wait for the answer and run the handler; False when nobody answered in time."""
        with trio.move_on_after(self._campaign._answer_within) as patience:
            try:
                await call.wait_answered()
            except (CallError, ConnectionLost):
                return True  # how it ended is learned from the call
        if patience.cancelled_caught:
            return False
        self._note(answered=self._campaign._now())
        self._tell(Step.ANSWERED)
        with contained(CallEvent.CALL_ANSWERED, partial(self._handler_failed, call)):
            await self._campaign._handler(call, self._row)
        return True

    def _handler_failed(self, call: ActiveCall, event: CallEvent | ClientEvent, error: Exception) -> None:
        if not _is_end_of(call, error):
            self._handler_error = error
            self._note(outcome=Outcome.HANDLER_FAILED, error=f"{type(error).__name__}: {error}")

    async def _learn_the_end(self, call: ActiveCall, *, in_time: bool) -> None:
        answered = self._so_far.answered is not None
        try:
            ending = await call.wait_ended()
        except (CallError, ConnectionLost) as error:
            self._settle(Outcome.ANSWERED if answered else Outcome.LOST, error=str(error))
            return
        # One may pick up and hang up again before the handler gets to run.
        if answered or ending.event.answer_timestamp_ms:
            self._settle(Outcome.ANSWERED, cause=ending.q850_cause)
        elif in_time:
            self._settle(Outcome.UNANSWERED, cause=ending.q850_cause)
        else:
            patience = self._campaign._answer_within
            self._settle(Outcome.UNANSWERED, cause=NO_ANSWER, error=f"nobody answered within {patience:g} s")

    def _settle(self, outcome: Outcome, **facts: Any) -> None:
        """The call is over. What its handler did to it, if it failed, is the more important outcome."""
        if self._handler_error is not None:
            facts = {name: fact for name, fact in facts.items() if name != "error"}
            outcome = Outcome.HANDLER_FAILED
        self._note(outcome=outcome, **facts)

    def _note(self, **facts: Any) -> None:
        self._so_far = attrs.evolve(self._so_far, **facts)

    def _tell(self, step: Step) -> None:
        so_far = self._so_far
        self._campaign._tell(step, self._row, attempt=so_far.number, call_sid=so_far.call_sid)


def _is_end_of(call: ActiveCall, error: BaseException) -> bool:
    """Whether ``error`` says no more than that this call is over: how most handlers end, some in groups."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_end_of(call, each) for each in error.exceptions)
    return isinstance(error, ConnectionLost) or (isinstance(error, CallEnded) and error.call_sid == call.call_sid)
