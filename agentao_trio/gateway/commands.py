"""What a client asked for, checked: the argument grammar of PROTOCOL section 9.2, and how a refusal is worded.

Everything here is text from a peer. It is shown only escaped and cut short, so that a reply or a log line holds no
control characters and no megabytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from agentao_trio import dialplan
from agentao_trio.errors import LocalProtocolError
from agentao_trio.legible import quoted
from agentao_trio.messages import (
    AllocateWtResponse,
    AnswerIncomingCallResponse,
    BulkResponse,
    ErrorCode,
    ExecuteDialplanResponse,
    Message,
    MethodId,
    OriginateRequest,
    OriginateResponse,
    SuperviseSubscribeResponse,
    TerminateResponse,
)

__all__ = [
    "MAX_ID",
    "Refused",
    "by_the_grammar",
    "check_default_app",
    "check_id",
    "invalid",
    "local_path",
    "reason",
    "refusal",
]

#: Characters of a call_sid, client_id, trunk_id or campaign_id.
MAX_ID = 256


class Refused(Exception):  # noqa: N818 - an answer, not an error of ours; it never leaves the gateway
    """A request is refused with ``code``; the text is the reply's error message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def invalid(message: str) -> Refused:
    """ERR_VALIDATION_FAILED."""
    return Refused(ErrorCode.ERR_VALIDATION_FAILED, message)


def reason(error: OSError | ValueError) -> str:
    """Why a file could not be used, without the path, which its reader knows."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def local_path(url: str, suffix: str) -> str:
    """The path in a ``file://`` URL or a plain absolute path. Raises :class:`Refused`: nothing is fetched from afar.

    ``suffix`` is required, here and for PLAYBACK, so that a client cannot ask about every file of this machine.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise invalid(f"{quoted(url)} is not a URL") from None
    path = unquote(parts.path) if parts.scheme == "file" and parts.netloc in ("", "localhost") else url
    if not dialplan.is_path(path, suffix):
        raise invalid(
            f"{quoted(url)} is not the absolute path or file:// URL of a {suffix} file; nothing else is fetched"
        )
    return path


def refusal(method: MethodId, call_sid: str, refused: Refused, timestamp_ms: int) -> Message | None:
    """The reply to a refused request; ``None`` for the methods whose reply has no place for an error."""
    code, text = refused.code, str(refused)
    match method:
        case MethodId.Originate | MethodId.Terminate | MethodId.AnswerIncomingCall:
            reply = {
                MethodId.Originate: OriginateResponse,
                MethodId.Terminate: TerminateResponse,
                MethodId.AnswerIncomingCall: AnswerIncomingCallResponse,
            }[method]
            return reply(
                call_sid=call_sid, status="FAILED", error_message=text, error_code=code, timestamp_ms=timestamp_ms
            )
        case MethodId.ExecuteDialplan:
            return ExecuteDialplanResponse(status="FAILED", error_message=text, error_code=code)
        case MethodId.AllocateWt:
            return AllocateWtResponse(status="FAILED", error_message=text, error_code=code, timestamp_ms=timestamp_ms)
        case MethodId.SuperviseSubscribe:
            return SuperviseSubscribeResponse(status="FAILED", error_message=text)
        case MethodId.OriginateBulk | MethodId.AbortBulk:
            return BulkResponse(status=f"FAILED: {text}")
        case _:
            return None


def check_id(field: str, value: str) -> None:
    """Raise :class:`Refused` for an id that nothing here can have."""
    if len(value) > MAX_ID:
        raise invalid(f"a {field} has no more than {MAX_ID} characters")


def check_default_app(request: OriginateRequest, *, inband: bool, loopback: bool) -> None:
    """Raise :class:`Refused` unless the request says properly what happens on answer."""
    with by_the_grammar():
        dialplan.check_default_app(request.default_app, request.default_app_args, inband=inband, loopback=loopback)
    if request.max_duration_ms < 0:
        raise invalid(f"max_duration_ms is {request.max_duration_ms}; it cannot be negative")
    if request.barge_in_patience_ms < 0:
        raise invalid(f"barge_in_patience_ms is {request.barge_in_patience_ms}; it cannot be negative")


@contextlib.contextmanager
def by_the_grammar() -> Iterator[None]:
    """What would be a mistake of ours, were we to send it, is one of the client's: :class:`Refused`."""
    try:
        yield
    except LocalProtocolError as error:
        raise invalid(str(error)) from None
