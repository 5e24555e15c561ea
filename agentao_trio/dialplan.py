"""What a gateway takes for an address and for the argument of a dialplan action, checked before anything is sent.

PROTOCOL sections 6 and 9.2 hold the grammar. A gateway answers ERR_VALIDATION_FAILED to what is refused here; saying it
first names the mistake, and costs no round trip.
"""

from __future__ import annotations

import re

from agentao_trio.errors import LocalProtocolError
from agentao_trio.messages import DialplanAction

__all__ = ["check_arguments", "check_destination", "check_originate"]

_E164 = re.compile(r"\+[0-9]{1,15}")
_SIP_URI = re.compile(r"sips?:[!-~]+")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_DTMF = re.compile(r"(?P<digit>[0-9*#A-D]):(?P<mode>rfc2833|info):(?P<ms>[0-9]{1,4})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_destination(to: str) -> None:
    """Raise :class:`LocalProtocolError` unless ``to`` is an E.164 number (``+`` and 1 to 15 digits) or a SIP URI."""
    if not (_E164.fullmatch(to) or _SIP_URI.fullmatch(to)):
        raise LocalProtocolError(
            f"{to!r} is not a destination; expected an E.164 number such as '+15550100001' or a SIP URI such as "
            "'sip:alice@example.com'"
        )


def check_originate(to: str, default_app: DialplanAction, default_app_args: str, traceparent: str) -> None:
    """Raise :class:`LocalProtocolError` for a field of Originate that the protocol does not allow."""
    check_destination(to)
    if not DialplanAction.HANGUP <= default_app <= DialplanAction.AI_BIDIRECTIONAL_STREAM:
        raise LocalProtocolError(
            f"default_app is {default_app!r}; a call can only start with one of the actions 0 (HANGUP) to "
            "6 (AI_BIDIRECTIONAL_STREAM)"
        )
    check_arguments(DialplanAction(default_app), default_app_args)
    if traceparent and not _TRACEPARENT.fullmatch(traceparent):
        raise LocalProtocolError(
            f"traceparent is {traceparent!r}; expected W3C trace context, for example "
            "'00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'"
        )


def check_arguments(action: DialplanAction, app_args: str) -> None:
    """Raise :class:`LocalProtocolError` unless ``app_args`` is what ``action`` takes (PROTOCOL section 9.2)."""
    match action:
        case DialplanAction.TRANSFER:
            check_destination(app_args)
        case DialplanAction.MUTE | DialplanAction.UNMUTE if app_args not in ("", "wire"):
            raise LocalProtocolError(f"{action.name} takes no argument or 'wire', not {app_args!r}")
        case DialplanAction.SEND_DTMF:
            _check_dtmf(app_args)
        case DialplanAction.PLAYBACK if not app_args.startswith("/") or _CONTROL.search(app_args):
            raise LocalProtocolError(f"PLAYBACK takes the absolute path of a .wav on the gateway, not {app_args!r}")
        case DialplanAction.UNPARK_AND_BRIDGE if not app_args:
            raise LocalProtocolError("UNPARK_AND_BRIDGE takes the call_sid of the other leg; none was given")
        case DialplanAction.HOLD | DialplanAction.UNHOLD if app_args:
            raise LocalProtocolError(f"{action.name} takes no argument, not {app_args!r}")
        case DialplanAction.SUPERVISE:
            raise LocalProtocolError("SUPERVISE is internal to the gateway; use SuperviseSubscribe")


def _check_dtmf(app_args: str) -> None:
    match = _DTMF.fullmatch(app_args)
    if match is None or not 40 <= int(match["ms"]) <= 4000:
        raise LocalProtocolError(
            f"SEND_DTMF takes '<digit>:<mode>:<ms>' with one digit of 0-9, *, #, A-D, the mode rfc2833 or info and 40 "
            f"to 4000 ms, not {app_args!r}"
        )
