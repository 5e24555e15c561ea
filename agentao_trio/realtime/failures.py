"""What a failure of a model means, and how often and how soon the same is tried again.

Where a failure is told matters as much as its code: limits were seen in ``response.done`` and not in ``error``. A code
that is not in the table counts for what its type says, and where that is unknown too the failure is final: to try again
blindly costs money. Pauses grow exponentially and are drawn from zero up ("full jitter"), so that many calls that fail
together do not come back together; what the server said about when its limits are back is waited for in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum

import attrs

from agentao_trio.errors import RealtimeError
from agentao_trio.realtime.protocol import ErrorDetails, Response, ResponseError

__all__ = ["ERRORS", "RESPONSES", "Budget", "Remedy", "of_error", "of_response", "refusal"]

#: Times in a row that something is tried again, the first of the pauses and the longest, in seconds.
MOST_RETRIES = 4
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 20.0


class Remedy(Enum):
    """What to do about a failure."""

    #: It only means that what was asked for has happened already.
    IGNORE = "ignore"
    #: Ask again when the response that is active has ended.
    WAIT = "wait"
    #: Ask again after a pause, as often as the budget allows.
    RETRY = "retry"
    #: The connection will end: have another one.
    RECONNECT = "reconnect"
    #: It will fail again; whoever asked is to be told.
    RAISE = "raise"


#: By code, then by type, where the server tells with ``error``.
ERRORS: Mapping[str, Remedy] = {
    "response_cancel_not_active": Remedy.IGNORE,
    "input_audio_buffer_commit_empty": Remedy.IGNORE,
    "conversation_already_has_active_response": Remedy.WAIT,
    "session_expired": Remedy.RECONNECT,
    "rate_limit_exceeded": Remedy.RETRY,
    "inference_rate_limit_exceeded": Remedy.RETRY,
    "insufficient_quota": Remedy.RAISE,
    "server_error": Remedy.RETRY,
}
#: The same for the error of a response that failed.
RESPONSES: Mapping[str, Remedy] = {
    "rate_limit_exceeded": Remedy.RETRY,
    "inference_rate_limit_exceeded": Remedy.RETRY,
    "insufficient_quota": Remedy.RAISE,
    "server_error": Remedy.RETRY,
}


def _remedy(table: Mapping[str, Remedy], error: ErrorDetails | ResponseError) -> Remedy:
    return table.get(error.code or "") or table.get(error.type or "") or Remedy.RAISE


def of_error(error: ErrorDetails) -> Remedy:
    """What an ``error`` event asks for."""
    return _remedy(ERRORS, error)


def of_response(response: Response) -> Remedy | None:
    """What the end of a response asks for; None where it did not fail. An incomplete one is for others to judge."""
    if response.status != "failed":
        return None
    error = response.status_details.error if response.status_details is not None else None
    return Remedy.RAISE if error is None else _remedy(RESPONSES, error)


def refusal(error: ErrorDetails) -> RealtimeError:
    """The exception for an ``error`` event."""
    return RealtimeError(
        error.message or "the model's server refused it",
        type=error.type or "",
        code=error.code,
        param=error.param,
        event_id=error.event_id,
        retryable=of_error(error) is Remedy.RETRY,
    )


@attrs.define(eq=False, kw_only=True)
class Budget:
    """How often one operation may be tried again, and when. ``jitter`` gives a random fraction (0 to 1)."""

    jitter: Callable[[], float]
    most: int = MOST_RETRIES
    #: Retries since the last success.
    spent: int = 0
    #: Seconds until the server's limits are back, as it last said.
    reset_seconds: float = 0.0

    @property
    def exhausted(self) -> bool:
        """Whether there is no retry left."""
        return self.spent >= self.most

    def succeeded(self) -> None:
        """The operation succeeded: the budget is full again."""
        self.spent = 0

    def pause(self) -> float:
        """Spend one retry; the seconds to wait before it."""
        grown = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self.spent, 16))
        self.spent += 1
        return min(LONGEST_PAUSE, max(self.reset_seconds, self.jitter() * grown))
