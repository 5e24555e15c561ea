"""What the protocol takes for an address and for the argument of a dialplan action (PROTOCOL sections 6 and 9.2).

A client checks before it sends: a gateway would answer ERR_VALIDATION_FAILED, and saying it first names the mistake and
costs no round trip. The embedded gateway checks what others send, by the same grammar.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from agentao_trio.errors import LocalProtocolError
from agentao_trio.legible import quoted
from agentao_trio.messages import DialplanAction

__all__ = [
    "Digit",
    "check_arguments",
    "check_default_app",
    "check_destination",
    "check_traceparent",
    "is_destination",
    "is_path",
    "parse_digit",
]

#: Characters of the longest address; RFC 3261 sets no limit, but no telephone network takes a longer one.
MAX_DESTINATION = 512

_E164 = re.compile(r"\+[0-9]{1,15}")
_SIP_URI = re.compile(r"sips?:[!-~]+")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_DTMF = re.compile(r"(?P<digit>[0-9*#A-D]):(?P<mode>rfc2833|info|inband):(?P<ms>[0-9]{1,4})")
_DTMF_MS = range(40, 4_001)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def is_destination(to: str) -> bool:
    """Whether ``to`` is an E.164 number (``+`` and 1 to 15 digits) or a SIP URI."""
    return len(to) <= MAX_DESTINATION and bool(_E164.fullmatch(to) or _SIP_URI.fullmatch(to))


def check_destination(to: str) -> None:
    """Raise :class:`LocalProtocolError` unless ``to`` is a destination."""
    _check_text("a destination", to)
    if not is_destination(to):
        raise LocalProtocolError(
            f"{quoted(to)} is not a destination; expected an E.164 number such as '+15550100001' or a SIP URI such as "
            "'sip:alice@example.com'"
        )


def check_traceparent(traceparent: str) -> None:
    """Raise :class:`LocalProtocolError` unless ``traceparent`` is empty or W3C trace context."""
    _check_text("traceparent", traceparent)
    if traceparent and not _TRACEPARENT.fullmatch(traceparent):
        raise LocalProtocolError(
            f"traceparent is {quoted(traceparent)}; expected W3C trace context, for example "
            "'00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'"
        )


def check_default_app(action: int, app_args: str, *, inband: bool = False, loopback: bool = False) -> None:
    """Raise :class:`LocalProtocolError` unless a call can start with ``action`` and its argument."""
    allowed = _is_action(action) and DialplanAction.HANGUP <= action <= DialplanAction.AI_BIDIRECTIONAL_STREAM
    if not (allowed or (loopback and action == DialplanAction.LOOPBACK)):
        raise LocalProtocolError(
            f"default_app is {_name(action)}; a call can only start with one of the actions 0 (HANGUP) to 6 "
            "(AI_BIDIRECTIONAL_STREAM)"
        )
    check_arguments(action, app_args, inband=inband)


def check_arguments(action: int, app_args: str, *, inband: bool = False) -> None:
    """Raise :class:`LocalProtocolError` unless ``app_args`` is what ``action`` takes.

    ``inband``: whether DTMF may be sent as sound, which the vendor's clients offer and its gateway does not (PROTOCOL
    section 16.19).
    """
    _check_text("the argument of a dialplan action", app_args)
    match action:
        case DialplanAction.TRANSFER if not is_destination(app_args):
            raise LocalProtocolError(f"TRANSFER takes an E.164 number or a SIP URI, not {quoted(app_args)}")
        case DialplanAction.MUTE | DialplanAction.UNMUTE if app_args not in ("", "wire"):
            raise LocalProtocolError(f"{_name(action)} takes no argument or 'wire', not {quoted(app_args)}")
        case DialplanAction.HOLD | DialplanAction.UNHOLD if app_args:
            raise LocalProtocolError(f"{_name(action)} takes no argument, not {quoted(app_args)}")
        case DialplanAction.SEND_DTMF:
            parse_digit(app_args, inband=inband)
        case DialplanAction.PLAYBACK if not is_path(app_args, ".wav"):
            raise LocalProtocolError(
                f"PLAYBACK takes the absolute path of a .wav on the gateway, not {quoted(app_args)}"
            )
        case DialplanAction.UNPARK_AND_BRIDGE if not app_args:
            raise LocalProtocolError("UNPARK_AND_BRIDGE takes the call_sid of the other leg; none was given")
        case DialplanAction.SUPERVISE:
            raise LocalProtocolError("SUPERVISE is internal to the gateway; use SuperviseSubscribe")
        case _ if not _is_action(action):
            raise LocalProtocolError(f"{_name(action)} is not a dialplan action")


def is_path(path: str, suffix: str) -> bool:
    """Whether ``path`` is an absolute path to a file of that kind, without control characters."""
    return path.startswith("/") and path.lower().endswith(suffix) and not _CONTROL.search(path)


class Digit(NamedTuple):
    """One DTMF digit, how it is sent and for how many milliseconds."""

    digit: str
    mode: str
    ms: int


def parse_digit(app_args: str, *, inband: bool = False) -> Digit:
    """``<digit>:<mode>:<ms>``. Raises :class:`LocalProtocolError`."""
    match = _DTMF.fullmatch(app_args)
    if match is None or int(match["ms"]) not in _DTMF_MS:
        raise LocalProtocolError(
            "SEND_DTMF takes '<digit>:<mode>:<ms>' with one digit of 0-9, *, #, A-D, the mode rfc2833 or info, and "
            f"{_DTMF_MS.start} to {_DTMF_MS.stop - 1} ms, not {quoted(app_args)}"
        )
    if match["mode"] == "inband" and not inband:
        raise LocalProtocolError("DTMF cannot be sent inband; use rfc2833 or info")
    return Digit(match["digit"], match["mode"], int(match["ms"]))


def _is_action(action: object) -> bool:
    return action in DialplanAction.__members__.values()


def _name(action: object) -> str:
    return action.name if isinstance(action, DialplanAction) else quoted(str(action)).strip("'")


def _check_text(what: str, value: object) -> None:
    """Types are not checked by Python, and what a program was given by others may be anything."""
    if not isinstance(value, str):
        raise LocalProtocolError(f"{what} is text (str), not {type(value).__name__}")
