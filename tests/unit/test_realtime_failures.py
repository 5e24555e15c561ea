"""What each failure means, and the budget of retries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentao_trio.realtime.failures import FIRST_PAUSE, LONGEST_PAUSE, Budget, Remedy, of_error, of_response, refusal
from agentao_trio.realtime.protocol import ErrorDetails, Response, ResponseError, StatusDetails


@pytest.mark.parametrize(
    ("type_", "code", "remedy"),
    [
        ("invalid_request_error", "response_cancel_not_active", Remedy.IGNORE),
        ("invalid_request_error", "input_audio_buffer_commit_empty", Remedy.IGNORE),
        ("invalid_request_error", "conversation_already_has_active_response", Remedy.WAIT),
        ("invalid_request_error", "session_expired", Remedy.RECONNECT),
        ("invalid_request_error", "invalid_value", Remedy.RAISE),
        ("invalid_request_error", "missing_required_parameter", Remedy.RAISE),
        ("invalid_request_error", "item_retrieve_invalid_item_id", Remedy.RAISE),
        ("invalid_request_error", None, Remedy.RAISE),
        ("server_error", None, Remedy.RETRY),
        ("server_error", "something_new", Remedy.RETRY),
        ("server_error", "insufficient_quota", Remedy.RAISE),
        (None, None, Remedy.RAISE),
    ],
)
def test_an_error_is_judged_by_its_code_and_then_by_its_type(
    type_: str | None, code: str | None, remedy: Remedy
) -> None:
    error = ErrorDetails(type=type_, code=code, message="words", event_id="mine")
    assert of_error(error) is remedy
    raised = refusal(error)
    assert raised.retryable is (remedy is Remedy.RETRY)
    assert (str(raised), raised.code, raised.event_id) == ("words", code, "mine")


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        ("failed", "rate_limit_exceeded", Remedy.RETRY),
        ("failed", "inference_rate_limit_exceeded", Remedy.RETRY),
        ("failed", "insufficient_quota", Remedy.RAISE),
        ("failed", "response_cancel_not_active", Remedy.RAISE),  # means nothing there
        ("failed", None, Remedy.RAISE),
        ("completed", None, None),
        ("cancelled", None, None),
        ("incomplete", "server_error", None),
    ],
)
def test_a_response_is_judged_by_its_status_and_its_error(status: str, code: str | None, remedy: Remedy | None) -> None:
    details = StatusDetails(error=ResponseError(code=code, type=None)) if code else None
    assert of_response(Response(status=status, status_details=details)) is remedy


@given(st.integers(1, 40), st.floats(0, 1), st.floats(0, 100))
def test_pauses_grow_to_a_bound_and_are_never_shorter_than_the_server_said(
    times: int, fraction: float, reset_seconds: float
) -> None:
    budget = Budget(jitter=lambda: fraction, reset_seconds=reset_seconds)
    pauses = [budget.pause() for _ in range(times)]
    for number, pause in enumerate(pauses):
        grown = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**number)
        assert min(LONGEST_PAUSE, reset_seconds) <= pause <= max(grown, min(LONGEST_PAUSE, reset_seconds))
    assert pauses == sorted(pauses)


def test_a_success_fills_the_budget_however_many_failures_there_were_before() -> None:
    budget = Budget(jitter=lambda: 1.0, most=2)
    for _ in range(50):
        first, second = budget.pause(), budget.pause()
        assert (first, second) == (FIRST_PAUSE, 2 * FIRST_PAUSE)
        assert budget.exhausted
        budget.succeeded()
        assert not budget.exhausted
