"""What a campaign knows and decides: whom to call, when again, and what became of each number.

Theory of operation
-------------------
A campaign is a list of rows. Each is called until its policy has had enough, and then has exactly one outcome. All of
that is bookkeeping over a clock that is passed in; the calls themselves are made by :mod:`agentao_trio.campaign`.

A row is *fresh*, then *being called*, then perhaps *waiting* for its next attempt, and being called again; at the end
it has its outcome. Rows that wait and whose time has come go before fresh ones, which go in the order of the file.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType

import attrs

from agentao_trio.campaign_numbers import CampaignRow
from agentao_trio.causes import q850_name
from agentao_trio.messages import ErrorCode

__all__ = [
    "Attempt",
    "CampaignPlan",
    "Outcome",
    "OutcomeLine",
    "Pace",
    "RetryPolicy",
    "RowResult",
    "Turn",
    "counted_lines",
    "outcome_lines",
]

#: Seconds that the pause after repeated refusals grows to.
LONGEST_REJECTED_PAUSE = 300.0
#: How often a call is tried again after ERR_INTERNAL_ERROR (PROTOCOL section 12: "once or twice").
INTERNAL_ERROR_REPEATS = 2


# -- the policy -----------------------------------------------------------------------------------------------------


class Outcome(StrEnum):
    """What became of one attempt, and at the end of a number."""

    #: Somebody answered, and the agent did its work.
    ANSWERED = "answered"
    #: Somebody answered, and the agent's own code failed.
    HANDLER_FAILED = "handler failed"
    #: The call ended without an answer; its Q.850 cause says why.
    UNANSWERED = "not answered"
    #: The gateway refused to place the call.
    REJECTED = "refused"
    #: Whether there was a call is not known. It is never repeated: somebody might be called twice.
    UNKNOWN = "outcome unknown"
    #: There was a call, and how it ended could not be learned.
    LOST = "lost"
    #: The campaign was ended while the number was being called, or while it waited for its next attempt.
    INTERRUPTED = "interrupted"
    #: The campaign was ended before the number was called.
    NOT_CALLED = "not called"
    #: An earlier row has the same number.
    DUPLICATE = "duplicate"


@attrs.frozen(kw_only=True)
class Attempt:
    """One attempt to reach a number. Times are in seconds since the campaign began."""

    number: int
    began: float
    ended: float
    outcome: Outcome
    call_sid: str = ""
    answered: float | None = None
    #: The Q.850 cause of the call's end; None where there was no call or its end is not known.
    cause: int | None = None
    #: The gateway's ErrorCode where it refused.
    code: int | None = None
    #: Whether a refusal is one that may be tried again (PROTOCOL section 12).
    retryable: bool = False
    #: What went wrong, in words.
    error: str = ""

    @property
    def meaning(self) -> str:
        """The name of the cause or of the error code; empty where there is neither."""
        if self.cause is not None:
            return q850_name(self.cause)
        if self.code is not None:
            return ErrorCode(self.code).name if self.code in tuple(ErrorCode) else f"error code {self.code}"
        return ""


def _seconds(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{attribute.name} must be zero or more seconds, not {value}")


def _causes(value: Iterable[int]) -> frozenset[int]:
    return frozenset(value)


def _pauses(value: Mapping[int, float]) -> Mapping[int, float]:
    return MappingProxyType(dict(value))


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """Whether and when a number that was not reached is called again. Pauses are seconds from the end of an attempt."""

    #: The Q.850 causes after which a number is called again: busy, no user responding, no answer.
    causes: frozenset[int] = attrs.field(default=frozenset({17, 18, 19}), converter=_causes)
    #: How often a number is called altogether.
    attempts: int = 3
    pause: float = attrs.field(default=60.0, validator=_seconds)
    #: Another pause after some of the causes.
    pauses: Mapping[int, float] = attrs.field(factory=dict, converter=_pauses)
    #: Whether a refusal that the protocol allows to be tried again is (PROTOCOL section 12).
    retry_rejected: bool = True
    #: The pause after the first refusal. Each refusal in a row doubles it, up to five minutes.
    rejected_pause: float = attrs.field(default=5.0, validator=_seconds)

    def __attrs_post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"a number is called once or more often, not {self.attempts} times")
        if wrong := sorted(cause for cause in self.causes if not 0 <= cause <= 127):
            raise ValueError(f"{wrong[0]} is not a Q.850 cause; expected 0 to 127")
        if unused := sorted(self.pauses.keys() - self.causes):
            raise ValueError(f"there is a pause after cause {unused[0]}, which is not among the causes to retry")
        for cause, pause in self.pauses.items():
            if not 0 <= pause < math.inf:
                raise ValueError(f"the pause after cause {cause} must be zero or more seconds, not {pause}")

    def pause_after(self, attempts: Sequence[Attempt]) -> float | None:
        """Seconds from the end of the last of these attempts to the next one; None for no next one."""
        last = attempts[-1]
        if len(attempts) >= self.attempts:
            return None
        if last.outcome is Outcome.UNANSWERED and last.cause in self.causes:
            return self.pauses.get(last.cause, self.pause)
        if last.outcome is Outcome.REJECTED and last.retryable and self.retry_rejected:
            return self._pause_after_refusals(attempts)
        return None

    def _pause_after_refusals(self, attempts: Sequence[Attempt]) -> float | None:
        codes = [attempt.code for attempt in attempts if attempt.outcome is Outcome.REJECTED]
        if codes[-1] == ErrorCode.ERR_INTERNAL_ERROR and codes.count(codes[-1]) > INTERNAL_ERROR_REPEATS:
            return None
        pause = self.rejected_pause
        for attempt in reversed(attempts[:-1]):
            if attempt.outcome is not Outcome.REJECTED or pause >= LONGEST_REJECTED_PAUSE:
                break
            pause = min(2 * pause, LONGEST_REJECTED_PAUSE)
        return pause


class Pace:
    """At most ``per_second`` calls a second, evenly, by the clock: lateness is not made up for in a burst."""

    def __init__(self, per_second: float) -> None:
        if not 0 < per_second < math.inf:
            raise ValueError(f"calls_per_second must be more than 0, not {per_second}")
        self._interval = 1 / per_second
        #: When the next call may be placed; at first at once.
        self.next_at: float = -math.inf

    def __repr__(self) -> str:
        return f"<Pace of {1 / self._interval:g} calls per second>"

    def placed(self, now: float) -> None:
        """A call was placed.

        One that was a little late keeps to the grid, so that the pace holds; one that was late by half a place, or had
        to wait for something else, begins a new grid.
        """
        self.next_at = (self.next_at if now - self.next_at < self._interval / 2 else now) + self._interval


# -- the books ------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Turn:
    """A row whose turn it is to be called, for the ``attempt``-th time."""

    index: int
    row: CampaignRow
    attempt: int


@attrs.frozen(kw_only=True)
class RowResult:
    """What became of one row. ``outcome`` is None while it is still in progress."""

    row: CampaignRow
    outcome: Outcome | None
    attempts: tuple[Attempt, ...]

    @property
    def cause(self) -> int | None:
        """The Q.850 cause of the last attempt, if it has one."""
        return self.attempts[-1].cause if self.attempts else None

    @property
    def meaning(self) -> str:
        """The name of the cause, or of the gateway's error code, of the last attempt."""
        return self.attempts[-1].meaning if self.attempts else ""

    @property
    def error(self) -> str:
        """What went wrong in the last attempt, in words."""
        return self.attempts[-1].error if self.attempts else ""


@attrs.frozen(kw_only=True)
class OutcomeLine:
    """A line of the table of outcomes: so many ``numbers`` ended like this."""

    outcome: Outcome
    cause: int | None
    meaning: str
    numbers: int


def outcome_lines(results: Sequence[RowResult]) -> tuple[OutcomeLine, ...]:
    """The outcomes by Q.850 cause, the most frequent first. Rows in progress are left out."""
    return counted_lines(
        Counter((result.outcome, result.cause, result.meaning) for result in results if result.outcome is not None)
    )


def counted_lines(counts: Counter[tuple[Outcome, int | None, str]]) -> tuple[OutcomeLine, ...]:
    """The same from counts of (outcome, cause, meaning), kept while a campaign is running."""
    return tuple(
        OutcomeLine(outcome=outcome, cause=cause, meaning=meaning, numbers=numbers)
        for (outcome, cause, meaning), numbers in counts.most_common()
    )


@attrs.define(eq=False)
class _Entry:
    row: CampaignRow
    attempts: list[Attempt] = attrs.field(factory=list)
    outcome: Outcome | None = None


class CampaignPlan:
    """Whose turn it is, and what became of whom. ``now`` is seconds of any steady clock."""

    def __init__(self, rows: Sequence[CampaignRow], policy: RetryPolicy) -> None:
        self._policy = policy
        self._entries = [_Entry(row, outcome=Outcome.DUPLICATE if row.duplicate_of else None) for row in rows]
        self._fresh = deque(index for index, entry in enumerate(self._entries) if entry.outcome is None)
        self._waiting: list[tuple[float, int]] = []
        self._calling: set[int] = set()
        self._stopped = False
        #: How many rows have each outcome by now.
        self.outcomes: Counter[Outcome] = Counter(entry.outcome for entry in self._entries if entry.outcome is not None)
        #: How many attempts are over.
        self.attempts: int = 0

    def __repr__(self) -> str:
        finished = self.outcomes.total()
        return (
            f"<CampaignPlan, {self.fresh} fresh, {self.calling} calling, {self.waiting} waiting, {finished} finished>"
        )

    @property
    def fresh(self) -> int:
        """Rows that have not been called yet and will be."""
        return len(self._fresh)

    @property
    def calling(self) -> int:
        """Rows that are being called."""
        return len(self._calling)

    @property
    def waiting(self) -> int:
        """Rows that wait for their next attempt."""
        return len(self._waiting)

    def due_at(self) -> float | None:
        """From when on there is somebody to call, -inf for any time; None while there is nobody."""
        if self._fresh:
            return -math.inf
        return self._waiting[0][0] if self._waiting else None

    def take(self, now: float) -> Turn:
        """Whose turn it is. :meth:`due_at` must have come."""
        if self._waiting and self._waiting[0][0] <= now:
            index = heapq.heappop(self._waiting)[1]
        else:
            index = self._fresh.popleft()
        self._calling.add(index)
        entry = self._entries[index]
        return Turn(index=index, row=entry.row, attempt=len(entry.attempts) + 1)

    def ended(self, turn: Turn, attempt: Attempt, now: float) -> float | None:
        """An attempt is over. Returns when the row will be called again; None where it has its outcome."""
        entry = self._entries[turn.index]
        self._calling.remove(turn.index)
        entry.attempts.append(attempt)
        self.attempts += 1
        pause = self._policy.pause_after(entry.attempts)
        if pause is None or self._stopped:
            self._settle(entry, attempt.outcome if pause is None else Outcome.INTERRUPTED)
            return None
        heapq.heappush(self._waiting, (now + pause, turn.index))
        return now + pause

    def stop(self) -> tuple[int, ...]:
        """Call nobody any more; rows being called go on. Returns the indices of the rows that this gave an outcome."""
        self._stopped = True
        given = (*self._fresh, *(index for _, index in self._waiting))
        for index in given:
            entry = self._entries[index]
            self._settle(entry, Outcome.INTERRUPTED if entry.attempts else Outcome.NOT_CALLED)
        self._fresh.clear()
        self._waiting.clear()
        return given

    def result(self, index: int) -> RowResult:
        """What has become of one row so far."""
        entry = self._entries[index]
        return RowResult(row=entry.row, outcome=entry.outcome, attempts=tuple(entry.attempts))

    def results(self) -> tuple[RowResult, ...]:
        """What has become of every row so far, in the order of the file."""
        return tuple(map(self.result, range(len(self._entries))))

    def _settle(self, entry: _Entry, outcome: Outcome) -> None:
        assert entry.outcome is None  # one row, one outcome
        entry.outcome = outcome
        self.outcomes[outcome] += 1
