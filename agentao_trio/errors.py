"""Every exception of the framework, and nothing else.

One failure, one leaf class. Values that a caller may want to branch on are keyword attributes, so that nobody has to
parse a message. Classes keep identity equality: two failures are never "the same" failure.

trio is imported for three of its base classes only, so that code written against trio's own vocabulary (*closed* is
what you did, *broken* is what they did, *end of channel* is the regular end) catches ours as well.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import trio

__all__ = [
    "AgentaoError",
    "AuthenticationError",
    "CallAnswerFailed",
    "CallConnectFailed",
    "CallEnded",
    "CallError",
    "CallOverrun",
    "CallStateError",
    "CommandError",
    "CommandRejected",
    "CommandTimeout",
    "ConnectError",
    "ConnectionLost",
    "EventsOverrun",
    "LocalProtocolError",
    "NumbersError",
    "ProtocolError",
    "RealtimeError",
    "RemoteProtocolError",
    "SessionClosed",
    "StreamReset",
    "TransportError",
]


class AgentaoError(Exception):
    """Base of everything this package raises on purpose."""


# -- the wire -------------------------------------------------------------------------------------------------------


class ProtocolError(AgentaoError):
    """A rule of the wire was broken. Which leaf it is says by whom."""


class LocalProtocolError(ProtocolError):
    """This side was asked to send something the protocol does not allow; nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer sent bytes the protocol does not allow.

    ``reason`` is a stable word for the rule that was broken (``"length_past_end"``, ``"frame_too_large"``, …),
    ``stream_id`` the QUIC stream it arrived on and ``offset`` the byte position within what was being decoded; both
    are ``None`` where the decoder was not told.
    """

    def __init__(
        self, message: str, *, reason: str = "", stream_id: int | None = None, offset: int | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.stream_id = stream_id
        self.offset = offset


# -- the connection -------------------------------------------------------------------------------------------------


class TransportError(AgentaoError):
    """Something below the protocol failed: name resolution, TLS, QUIC, the path."""


class ConnectError(TransportError):
    """No connection could be made: name, port, path, certificate or ALPN. The message says which, and what to do.

    ``refused``: the peer was reached, and it or we said no. Trying again soon will not help. ``reason`` is a stable
    word for what was in the way: ``"name"``, ``"port"`` (nobody listens), ``"mtu"``, ``"path"``, ``"silence"``,
    ``"slow"``, ``"alpn"``, ``"dates"``, ``"host_name"`` and ``"chain"`` (of the certificate), ``"handshake"``, or
    ``"files"`` (our own). ``certificate`` is the one that was not accepted, in DER form.
    """

    def __init__(
        self, message: str, *, reason: str = "", refused: bool = False, certificate: bytes | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.refused = refused
        self.certificate = certificate


class AuthenticationError(TransportError):
    """The gateway refused who we say we are, or the credentials file is not usable."""


class ConnectionLost(TransportError, trio.BrokenResourceError):
    """The connection ended and we did not end it.

    ``code`` and ``reason`` are what the peer's CLOSE said; ``code`` is ``None`` where the path simply went silent.
    """

    def __init__(self, message: str, *, code: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class StreamReset(TransportError, trio.BrokenResourceError):
    """The peer abandoned one stream (RESET_STREAM or STOP_SENDING, RFC 9000 §3.5) with application error ``code``."""

    def __init__(self, message: str, *, stream_id: int, code: int) -> None:
        super().__init__(message)
        self.stream_id = stream_id
        self.code = code


class EventsOverrun(AgentaoError):
    """A reader that asked not to lose any event did not keep up; it has been given all it had room for."""


class NumbersError(AgentaoError, ValueError):
    """A file of numbers to call cannot be used.

    ``problems`` are all of its mistakes, each the line and what is wrong with it; the message tells the first ones.
    """

    #: How many problems the message tells.
    TOLD = 10

    def __init__(self, problems: Sequence[tuple[int, str]]) -> None:
        self.problems: tuple[tuple[int, str], ...] = tuple(sorted(problems))
        lines = [f"line {line}: {what}" for line, what in self.problems[: self.TOLD]]
        if len(self.problems) > self.TOLD:
            lines.append(f"and {len(self.problems) - self.TOLD} more")
        super().__init__("\n".join(lines))


class SessionClosed(AgentaoError, trio.ClosedResourceError):
    """The session was closed by this program; its calls and methods can no longer be used."""


# -- commands -------------------------------------------------------------------------------------------------------


class CommandError(AgentaoError):
    """An RPC did not do what was asked.

    ``method`` is its name (``"Originate"``), ``code`` the gateway's ErrorCode or ``None``, ``retryable`` whether the
    protocol's guidance (section 12) allows trying again after a pause.
    """

    def __init__(self, message: str, *, method: str, code: int | None = None, retryable: bool = False) -> None:
        super().__init__(message)
        self.method = method
        self.code = code
        self.retryable = retryable


class CommandRejected(CommandError):
    """The gateway answered, and the answer was no."""


class CommandTimeout(CommandError, trio.TooSlowError):
    """The gateway did not answer in time. The outcome is unknown: the command may or may not have been carried out."""


# -- calls ----------------------------------------------------------------------------------------------------------


class CallError(AgentaoError):
    """Something about one call; ``call_sid`` says which."""

    def __init__(self, message: str, *, call_sid: str) -> None:
        super().__init__(message)
        self.call_sid = call_sid


class CallStateError(CallError):
    """``command`` is not allowed in ``state``; ``allowed`` names what is. Nothing was sent."""

    def __init__(self, message: str, *, call_sid: str, state: Any, command: str, allowed: Collection[str]) -> None:
        super().__init__(message, call_sid=call_sid)
        self.state = state
        self.command = command
        self.allowed: frozenset[str] = frozenset(allowed)


class CallEnded(CallError, trio.EndOfChannel):
    """The call is over. ``q850_cause`` is the ITU-T Q.850 cause value, ``statistics`` the call's final figures."""

    def __init__(self, message: str, *, call_sid: str, q850_cause: int = 0, statistics: Any = None) -> None:
        super().__init__(message, call_sid=call_sid)
        self.q850_cause = q850_cause
        self.statistics = statistics


class CallAnswerFailed(CallError):
    """An inbound call could not be answered; its state is what it was before."""


class CallConnectFailed(CallError):
    """The second leg could not be reached; the call's state is what it was before."""

    def __init__(self, message: str, *, call_sid: str, q850_cause: int = 0) -> None:
        super().__init__(message, call_sid=call_sid)
        self.q850_cause = q850_cause


class CallOverrun(CallError):
    """The program did not take this call's events; its bounded queue was full, and the call was ended."""


# -- models ---------------------------------------------------------------------------------------------------------


class RealtimeError(AgentaoError):
    """A Realtime model's server refused something, or this program wrote what no server would take.

    ``type`` and ``code`` are the server's words, ``param`` the field they are about, ``event_id`` the *client* event
    that caused it, each ``None`` or empty where it was not told. ``retryable``: the same may succeed after a pause.
    """

    def __init__(
        self,
        message: str,
        *,
        type: str = "",
        code: str | None = None,
        param: str | None = None,
        event_id: str | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.type = type
        self.code = code
        self.param = param
        self.event_id = event_id
        self.retryable = retryable
