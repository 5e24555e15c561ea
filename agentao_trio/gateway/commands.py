"""What a client asked for, checked: the argument grammar of PROTOCOL section 9.2, and how a refusal is worded.

Everything here is text from a peer. It is shown only escaped and cut short, so that a reply or a log line holds no
control characters and no megabytes.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from agentao_trio.gateway.farends import is_destination
from agentao_trio.messages import (
    AllocateWtResponse,
    AnswerIncomingCallResponse,
    BulkResponse,
    DialplanAction,
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
    "MAX_CALL_SID",
    "Digit",
    "Refused",
    "check_arguments",
    "check_call_sid",
    "check_default_app",
    "invalid",
    "local_path",
    "parse_digit",
    "reason",
    "refusal",
    "shown",
]

MAX_CALL_SID = 256
_SHOWN = 64
_DTMF = re.compile(r"(?P<digit>[0-9*#A-D]):(?P<mode>rfc2833|info|inband):(?P<ms>[0-9]{1,4})")
_DTMF_MS = range(40, 4_001)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Refused(Exception):  # noqa: N818 - an answer, not an error of ours; it never leaves the gateway
    """A request is refused with ``code``; the text is the reply's error message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def invalid(message: str) -> Refused:
    """ERR_VALIDATION_FAILED."""
    return Refused(ErrorCode.ERR_VALIDATION_FAILED, message)


def shown(text: str) -> str:
    """A peer's text in quotes: ASCII, escaped, at most 64 of its characters."""
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


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
        raise invalid(f"{shown(url)} is not a URL") from None
    path = unquote(parts.path) if parts.scheme == "file" and parts.netloc in ("", "localhost") else url
    if not _is_path(path, suffix):
        raise invalid(
            f"{shown(url)} is not the absolute path or file:// URL of a {suffix} file; nothing else is fetched"
        )
    return path


def _is_path(path: str, suffix: str) -> bool:
    return path.startswith("/") and path.lower().endswith(suffix) and not _CONTROL.search(path)


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


def check_call_sid(call_sid: str) -> None:
    """Raise :class:`Refused` for a call_sid that no call can have."""
    if len(call_sid) > MAX_CALL_SID:
        raise invalid(f"a call_sid has no more than {MAX_CALL_SID} characters")


def check_default_app(request: OriginateRequest, *, inband: bool, loopback: bool) -> None:
    """Raise :class:`Refused` unless the request says properly what happens on answer."""
    app = request.default_app
    if not (0 <= app <= DialplanAction.AI_BIDIRECTIONAL_STREAM or (app == DialplanAction.LOOPBACK and loopback)):
        raise invalid(f"{_name(app)} cannot be a default_app; 0 (HANGUP) to 6 (AI_BIDIRECTIONAL_STREAM) can")
    check_arguments(app, request.default_app_args, inband=inband)
    if request.max_duration_ms < 0:
        raise invalid(f"max_duration_ms is {request.max_duration_ms}; it cannot be negative")
    if request.barge_in_patience_ms < 0:
        raise invalid(f"barge_in_patience_ms is {request.barge_in_patience_ms}; it cannot be negative")


def check_arguments(action: int, arguments: str, *, inband: bool) -> None:
    """Raise :class:`Refused` unless ``arguments`` is what ``action`` takes."""
    match action:
        case DialplanAction.TRANSFER if not is_destination(arguments):
            raise invalid(f"TRANSFER takes an E.164 number or a SIP URI, not {shown(arguments)}")
        case DialplanAction.MUTE | DialplanAction.UNMUTE if arguments not in ("", "wire"):
            raise invalid(f"{_name(action)} takes no argument or 'wire', not {shown(arguments)}")
        case DialplanAction.HOLD | DialplanAction.UNHOLD if arguments:
            raise invalid(f"{_name(action)} takes no argument, not {shown(arguments)}")
        case DialplanAction.SEND_DTMF:
            parse_digit(arguments, inband=inband)
        case DialplanAction.PLAYBACK if not _is_path(arguments, ".wav"):
            raise invalid(f"PLAYBACK takes the absolute path of a .wav on the gateway, not {shown(arguments)}")
        case DialplanAction.UNPARK_AND_BRIDGE if not arguments:
            raise invalid("UNPARK_AND_BRIDGE takes the call_sid of the other leg")
        case DialplanAction.SUPERVISE:
            raise invalid("SUPERVISE is internal to the gateway; use SuperviseSubscribe")
        case _ if action not in DialplanAction.__members__.values():
            raise invalid(f"{action} is not a dialplan action")


class Digit(NamedTuple):
    """One DTMF digit, how it is sent and for how many milliseconds."""

    digit: str
    mode: str
    ms: int


def parse_digit(arguments: str, *, inband: bool) -> Digit:
    """``<digit>:<mode>:<ms>``. Raises :class:`Refused`."""
    match = _DTMF.fullmatch(arguments)
    if match is None or int(match["ms"]) not in _DTMF_MS:
        raise invalid(
            "SEND_DTMF takes '<digit>:<mode>:<ms>' with one digit of 0-9, *, #, A-D, the mode rfc2833 or info, and "
            f"{_DTMF_MS.start} to {_DTMF_MS.stop - 1} ms, not {shown(arguments)}"
        )
    if match["mode"] == "inband" and not inband:
        raise invalid("this gateway does not send DTMF inband; use rfc2833 or info")
    return Digit(match["digit"], match["mode"], int(match["ms"]))


def _name(action: int) -> str:
    return action.name if isinstance(action, DialplanAction) else str(action)
