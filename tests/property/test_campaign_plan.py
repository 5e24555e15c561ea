"""The books of a campaign against a naive model, and the laws of its pace."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentao_trio.campaign_numbers import CampaignRow
from agentao_trio.campaign_plan import (
    Attempt,
    CampaignPlan,
    Outcome,
    Pace,
    RetryPolicy,
    Turn,
    outcome_lines,
)

CAUSES = [0, 16, 17, 18, 19, 41]


@st.composite
def policies(draw: st.DrawFn) -> RetryPolicy:
    causes = draw(st.frozensets(st.sampled_from(CAUSES)))
    return RetryPolicy(
        causes=causes,
        attempts=draw(st.integers(1, 5)),
        pause=draw(st.integers(0, 100)),
        pauses=draw(st.dictionaries(st.sampled_from(sorted(causes)), st.integers(0, 100))) if causes else {},
        retry_rejected=draw(st.booleans()),
        rejected_pause=draw(st.integers(0, 400)),
    )


def attempt(outcome: Outcome, **facts: Any) -> Attempt:
    return Attempt(number=1, began=0, ended=0, outcome=outcome, **facts)


ATTEMPTS = st.one_of(
    st.sampled_from(CAUSES).map(lambda cause: attempt(Outcome.UNANSWERED, cause=cause)),
    st.sampled_from([1, 3, 4, 5]).map(lambda code: attempt(Outcome.REJECTED, code=code, retryable=code != 1)),
    st.sampled_from(
        [
            # A cause counts only where nobody answered: whoever was reached is not called again.
            attempt(Outcome.ANSWERED, cause=17),
            attempt(Outcome.HANDLER_FAILED, cause=17),
            attempt(Outcome.UNKNOWN),
            attempt(Outcome.LOST),
            attempt(Outcome.INTERRUPTED),
        ]
    ),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(0, 120)),
        st.tuples(st.just("call"), st.just(0)),
        st.tuples(st.just("end"), st.tuples(st.integers(0, 9), ATTEMPTS)),
    ),
    max_size=60,
)


def naive_pause(policy: RetryPolicy, history: list[Attempt]) -> float | None:
    """The policy in so many words."""
    last = history[-1]
    if len(history) == policy.attempts:
        return None
    if last.outcome is Outcome.UNANSWERED:
        if last.cause not in policy.causes:
            return None
        return {**dict.fromkeys(policy.causes, policy.pause), **policy.pauses}[last.cause]
    if last.outcome is not Outcome.REJECTED or not last.retryable or not policy.retry_rejected:
        return None
    if last.code == 5 and len([each for each in history if each.code == 5]) == 3:
        return None
    refused_in_a_row = 0
    for each in history:
        refused_in_a_row = refused_in_a_row + 1 if each.outcome is Outcome.REJECTED else 0
    doubled: float = policy.rejected_pause * 2 ** (refused_in_a_row - 1)
    return doubled if refused_in_a_row == 1 else min(doubled, max(300, policy.rejected_pause))


@attrs.define
class NaiveRow:
    state: str = "fresh"
    due: float = -math.inf
    history: list[Attempt] = attrs.field(factory=list)
    outcome: Outcome | None = None


@given(st.lists(st.booleans(), max_size=6), policies(), STEPS, st.booleans())
def test_the_books_agree_with_a_naive_model(
    duplicates: list[bool], policy: RetryPolicy, steps: list[tuple[str, Any]], stops: bool
) -> None:
    rows = [
        CampaignRow(to=f"+1555010{index:04}", line=index + 2, duplicate_of=duplicate)
        for index, duplicate in enumerate(duplicates)
    ]
    plan = CampaignPlan(rows, policy)
    model = [NaiveRow("done", outcome=Outcome.DUPLICATE) if row.duplicate_of else NaiveRow() for row in rows]
    turns: dict[int, Turn] = {}
    now = 0.0

    def end(index: int, result: Attempt, *, stopped: bool) -> None:
        row = model[index]
        row.history.append(result)
        pause = naive_pause(policy, row.history)
        again = plan.ended(turns.pop(index), result, now)
        if pause is None:
            row.state, row.outcome = "done", result.outcome
            assert again is None
        elif stopped:
            row.state, row.outcome = "done", Outcome.INTERRUPTED
            assert again is None
        else:
            row.state, row.due = "waiting", now + pause
            assert again == row.due

    def check() -> None:
        states = Counter(row.state for row in model)
        assert (plan.fresh, plan.calling, plan.waiting) == (states["fresh"], states["calling"], states["waiting"])
        dues = [row.due for row in model if row.state in ("fresh", "waiting")]
        assert plan.due_at() == min(dues, default=None)
        assert [(result.outcome, list(result.attempts)) for result in plan.results()] == [
            (row.outcome, row.history) for row in model
        ]
        assert plan.outcomes == Counter(row.outcome for row in model if row.outcome is not None)
        assert plan.attempts == sum(len(row.history) for row in model)

    check()
    for what, value in steps:
        if what == "wait":
            now += value
        elif what == "call" and (due := plan.due_at()) is not None and due <= now:
            late = [(row.due, index) for index, row in enumerate(model) if row.state == "waiting" and row.due <= now]
            fresh = [(row.due, index) for index, row in enumerate(model) if row.state == "fresh"]
            _, index = min(late or fresh)
            turn = plan.take(now)
            assert turn == Turn(index=index, row=rows[index], attempt=len(model[index].history) + 1)
            model[index].state, turns[index] = "calling", turn
        elif what == "end" and turns:
            number, result = value
            end(sorted(turns)[number % len(turns)], result, stopped=False)
        check()
    if stops:
        given = plan.stop()
        assert sorted(given) == [index for index, row in enumerate(model) if row.state in ("fresh", "waiting")]
        for row in model:
            if row.state in ("fresh", "waiting"):
                row.state, row.outcome = "done", Outcome.INTERRUPTED if row.history else Outcome.NOT_CALLED
        check()
        for index in list(turns):
            end(index, attempt(Outcome.UNANSWERED, cause=17), stopped=True)
        check()
        # Every row has exactly one outcome, and the table has every row.
        assert all(result.outcome is not None for result in plan.results())
        assert sum(line.numbers for line in outcome_lines(plan.results())) == len(rows)


@given(policies(), st.lists(ATTEMPTS, min_size=1, max_size=8))
def test_nobody_is_called_more_often_than_allowed_nor_again_after_an_answer(
    policy: RetryPolicy, history: list[Attempt]
) -> None:
    pause = policy.pause_after(history)
    if len(history) >= policy.attempts or history[-1].outcome not in (Outcome.UNANSWERED, Outcome.REJECTED):
        assert pause is None
    assert pause is None or 0 <= pause <= 400


def test_the_pause_after_refusals_doubles_up_to_five_minutes() -> None:
    policy = RetryPolicy(attempts=99, rejected_pause=40)
    refused, busy = attempt(Outcome.REJECTED, code=3, retryable=True), attempt(Outcome.UNANSWERED, cause=17)
    assert [policy.pause_after([refused] * count) for count in range(1, 7)] == [40, 80, 160, 300, 300, 300]
    assert policy.pause_after([refused, refused, busy, refused]) == 40
    assert RetryPolicy(rejected_pause=1000).pause_after([refused, refused]) == 1000


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"attempts": 0}, "called once or more often, not 0"),
        ({"causes": [17, 128]}, "128 is not a Q.850 cause"),
        ({"pause": -1}, "pause must be zero or more seconds"),
        ({"pause": math.inf}, "pause must be zero or more seconds"),
        ({"rejected_pause": math.nan}, "rejected_pause must be zero or more"),
        ({"pauses": {20: 5}}, "there is a pause after cause 20, which is not among the causes"),
        ({"pauses": {17: -5}}, "the pause after cause 17 must be zero or more"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        RetryPolicy(**arguments)


# -- the pace -------------------------------------------------------------------------------------------------------

RATES = st.one_of(st.integers(1, 200), st.floats(0.05, 200))


@given(RATES, st.lists(st.tuples(st.floats(0, 3), st.floats(0, 3)), max_size=60))
def test_no_window_holds_more_calls_than_the_pace_allows(per_second: float, delays: list[tuple[float, float]]) -> None:
    """However long calls have to wait for room, and however late the program is."""
    pace, placed = Pace(per_second), [0.0]
    pace.placed(0.0)
    for wait, late in delays:
        now = max(placed[-1] + wait / per_second, pace.next_at) + late / per_second
        pace.placed(now)
        placed.append(now)
        assert pace.next_at - now > 0.499 / per_second
    for first, start in enumerate(placed):
        for calls, end in enumerate(placed[first:]):
            # A call may come half an interval after its place on the grid without moving those that follow.
            assert end - start > (calls - 0.5) / per_second - 1e-6


@given(RATES, st.lists(st.floats(0, 0.49), max_size=200))
def test_lateness_does_not_add_up(per_second: float, lateness: list[float]) -> None:
    pace = Pace(per_second)
    pace.placed(1000.0)
    for number, late in enumerate(lateness, 1):
        assert pace.next_at == pytest.approx(1000.0 + number / per_second)
        pace.placed(pace.next_at + late / per_second)


@pytest.mark.parametrize("per_second", [0, -1, math.nan, math.inf])
def test_a_pace_that_is_none_is_refused(per_second: float) -> None:
    with pytest.raises(ValueError, match="calls_per_second must be more than 0"):
        Pace(per_second)
