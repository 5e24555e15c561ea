"""What a fault of the embedded gateway may interfere with, and how several of them work together.

A gateway that breaks one rule is what a judge of gateways is judged with. A :class:`Fault` has a method for each place
at which the gateway lets itself be interfered with; each of them does nothing unless the fault overrides it. Faults
keep to messages, bytes and settings; for what goes beyond that there are :class:`Hands`.

The gateway asks whether there is a fault at all before it asks anything of one: a gateway without costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, TypeVar

import attrs

from agentao_trio.gateway.calls import Call
from agentao_trio.gateway.settings import GatewaySettings
from agentao_trio.gateway.subscriptions import Entry, Peer, Subscription
from agentao_trio.messages import AudioFrame, CallEvent, Message, MethodId

__all__ = ["FAULTS", "Dice", "Downward", "Fault", "Faults", "Hands", "Oddity", "changed", "fault", "simple"]

T = TypeVar("T")
M = TypeVar("M", bound=Message)
#: What goes to a client on streams of the gateway's.
Downward: TypeAlias = CallEvent | AudioFrame
#: What a client may do that is not as it should be: frames that are too short, too long, cut off, of an unknown method,
#: not decodable; a request that cannot be read.
Oddity: TypeAlias = Literal["short", "too_long", "truncated", "unknown_method", "undecodable", "request"]


class Dice(Protocol):
    """The part of ``random.Random`` that faults use."""

    def random(self) -> float: ...
    def uniform(self, a: float, b: float) -> float: ...
    def randrange(self, start: int, stop: int | None = None) -> int: ...
    def randbytes(self, n: int) -> bytes: ...
    def choice(self, seq: Sequence[T]) -> T: ...


class Hands(Protocol):
    """What a fault can do to the gateway it sits in."""

    @property
    def calls(self) -> Mapping[str, Call]:
        """The open calls."""

    @property
    def peers(self) -> Sequence[Peer]:
        """The connections there are."""

    def now(self) -> float:
        """Seconds of the gateway's clock."""

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Have something done after a while."""

    def send(self, peer: Peer, message: Downward, *, apart: bool = False) -> None:
        """Write a message to a connection as it is, on a stream of its own if ``apart``."""

    def drop(self, peer: Peer) -> None:
        """Close a connection as after an error of the protocol."""

    def reset_streams(self, peer: Peer) -> None:
        """Abandon the streams of a connection; what was on them is repeated as usual."""

    def subscribe(self, peer: Peer, client_id: str) -> None:
        """Subscribe a connection."""

    def end(self, call: Call, cause: int) -> None:
        """End a call."""

    def toggle_hold(self, call: Call) -> None:
        """Hold a call that is up, or resume one that is held."""


class Fault:
    """One way to be wrong. The class's docstring is what ``--faults`` says about it."""

    name: ClassVar[str] = ""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self._hands: Hands | None = None

    def attach(self, hands: Hands) -> None:
        """The gateway is up."""
        self._hands = hands

    @property
    def hands(self) -> Hands:
        """What it can do to its gateway, once that is up."""
        assert self._hands is not None  # whatever is asked of a fault, its gateway is up
        return self._hands

    # -- what the gateway is made of ------------------------------------------------------------------------------

    def settings(self, settings: GatewaySettings) -> GatewaySettings:
        """The settings to work with."""
        return settings

    def transport(self) -> Mapping[str, Any]:
        """Settings of the transport that differ."""
        return {}

    def names(self, names: Sequence[str]) -> Sequence[str]:
        """The names that the certificate is for."""
        return names

    def expiry(self) -> datetime | None:
        """When the certificate expires; None is as usual."""
        return None

    def arriving(self, datagram: bytes, source: Any) -> bool:
        """Whether a datagram is taken in."""
        return True

    def leaving(self, datagram: bytes, to: Any) -> bool:
        """Whether a datagram is sent."""
        return True

    # -- what goes out --------------------------------------------------------------------------------------------

    def out(self, peer: Peer, message: Downward) -> Iterable[Downward]:
        """What is written in the place of an event or a packet."""
        return (message,)

    def frame(self, stream: object, method: MethodId, data: bytes) -> bytes:
        """The bytes that are written in the place of a frame, to that stream."""
        return data

    def reply(self, peer: Peer, method: MethodId, request: Message, reply: Any) -> Any:
        """What is answered in the place of a message, or of a silence."""
        return reply

    def reply_bytes(self, method: MethodId, data: bytes) -> bytes:
        """The bytes that are written in the place of a reply."""
        return data

    def reply_after(self, peer: Peer, method: MethodId) -> float:
        """Seconds to wait before a reply."""
        return 0.0

    # -- streams --------------------------------------------------------------------------------------------------

    def wants_stream(self, message: CallEvent) -> bool:
        """Whether this event begins another stream; the one before is left open."""
        return False

    def finishes_streams(self) -> bool:
        """Whether a stream that has served its purpose is ended."""
        return True

    def no_stream_left(self, peer: Peer) -> None:
        """The peer allows no further stream."""

    def stream_lost(self, peer: Peer) -> None:
        """The peer has stopped a stream."""

    def holds_events(self, audio_backlog: int) -> bool:
        """Whether events wait, with so many bytes of audio unacknowledged."""
        return False

    def accepts_stream(self, peer: Peer, unidirectional: bool) -> bool:
        """Whether a stream of the peer is looked at; when not, no other one will be."""
        return True

    def admits(self, peers: int) -> bool:
        """Whether one more connection is served besides so many."""
        return True

    # -- what comes in --------------------------------------------------------------------------------------------

    def body(self, peer: Peer, method: MethodId, body: bytes) -> bytes:
        """The envelope that is read in the place of a request's. May raise RemoteProtocolError."""
        return body

    def request(self, peer: Peer, method: MethodId, message: Any) -> Any:
        """The request that is carried out in the place of one."""
        return message

    def uplink(self, peer: Peer, stream: object, data: bytes) -> bytes:
        """The bytes of an uplink stream that are read in the place of those that came at once."""
        return data

    def heard(self, peer: Peer, frame: AudioFrame) -> AudioFrame | None:
        """The packet that is taken in the place of one."""
        return frame

    def odd(self, peer: Peer, what: Oddity) -> None:
        """A client has done something odd."""

    # -- what is kept ---------------------------------------------------------------------------------------------

    def kept(self, subscription: Subscription, event: CallEvent) -> bool:
        """Whether an event is queued for a subscription."""
        return True

    def replayed(self, subscription: Subscription, entries: list[Entry], connection_lost: bool) -> list[Entry]:
        """What is sent again after a stream, or a connection, was lost."""
        return entries

    def waiting(self, subscription: Subscription, entries: list[Entry], others: list[Subscription]) -> list[Entry]:
        """What a client gets that has just subscribed, of what waited for it."""
        return entries


#: Every fault by name; complete once :mod:`agentao_trio.gateway.faults` is imported.
FAULTS: dict[str, type[Fault]] = {}


def fault(cls: type[Fault]) -> type[Fault]:
    """Register a fault under its class's name in snake_case."""
    return _register(cls, re.sub(r"(?<!^)(?=[A-Z])|(?<=[a-z])(?=[0-9])", "_", cls.__name__).lower())


def _register(cls: type[Fault], name: str) -> type[Fault]:
    assert name not in FAULTS, name
    cls.name = name
    FAULTS[name] = cls
    return cls


def changed(message: M, fields: Mapping[str, Any], *about: Any) -> M:
    """``message`` with other fields; one that is a function is called with what the change is ``about``."""
    return attrs.evolve(message, **{name: each(*about) if callable(each) else each for name, each in fields.items()})


def simple(
    name: str,
    description: str,
    *,
    event: Callable[[CallEvent], CallEvent] | None = None,
    packet: Callable[[AudioFrame], AudioFrame] | None = None,
    reply: Callable[[MethodId, Any, Any], Any] | None = None,
    request: Callable[[Any], Any] | None = None,
    heard: Callable[[AudioFrame], AudioFrame | None] | None = None,
    settings: Callable[[GatewaySettings], GatewaySettings] | None = None,
) -> None:
    """Register a fault without a memory: what becomes of an event, a packet, a reply (of its method and request), a
    request, a packet heard, the settings."""

    class Simple(Fault):
        def out(self, peer: Peer, message: Downward) -> Iterable[Downward]:
            if isinstance(message, CallEvent):
                yield message if event is None else event(message)
            else:
                yield message if packet is None else packet(message)

        def reply(self, peer: Peer, method: MethodId, asked: Message, answer: Any) -> Any:
            return answer if reply is None else reply(method, asked, answer)

        def request(self, peer: Peer, method: MethodId, message: Any) -> Any:
            return message if request is None else request(message)

        def heard(self, peer: Peer, frame: AudioFrame) -> AudioFrame | None:
            return frame if heard is None else heard(frame)

        def settings(self, given: GatewaySettings) -> GatewaySettings:
            return given if settings is None else settings(given)

    Simple.__doc__ = description
    _register(Simple, name)


class Faults(Fault):
    """Several at once, in the order they are given: each sees what the one before has made."""

    def __init__(self, faults: Sequence[Fault], dice: Dice) -> None:
        super().__init__(dice)
        self._faults = tuple(faults)

    def attach(self, hands: Hands) -> None:
        super().attach(hands)
        for each in self._faults:
            each.attach(hands)

    def settings(self, settings: GatewaySettings) -> GatewaySettings:
        for each in self._faults:
            settings = each.settings(settings)
        return settings

    def transport(self) -> Mapping[str, Any]:
        return {name: value for each in self._faults for name, value in each.transport().items()}

    def names(self, names: Sequence[str]) -> Sequence[str]:
        for each in self._faults:
            names = each.names(names)
        return names

    def expiry(self) -> datetime | None:
        return next((when for each in self._faults if (when := each.expiry()) is not None), None)

    def arriving(self, datagram: bytes, source: Any) -> bool:
        return all(each.arriving(datagram, source) for each in self._faults)

    def leaving(self, datagram: bytes, to: Any) -> bool:
        return all(each.leaving(datagram, to) for each in self._faults)

    def out(self, peer: Peer, message: Downward) -> Iterable[Downward]:
        messages = [message]
        for each in self._faults:
            messages = [new for old in messages for new in each.out(peer, old)]
        return messages

    def frame(self, stream: object, method: MethodId, data: bytes) -> bytes:
        for each in self._faults:
            data = each.frame(stream, method, data)
        return data

    def reply(self, peer: Peer, method: MethodId, request: Message, reply: Any) -> Any:
        for each in self._faults:
            reply = each.reply(peer, method, request, reply)
        return reply

    def reply_bytes(self, method: MethodId, data: bytes) -> bytes:
        for each in self._faults:
            data = each.reply_bytes(method, data)
        return data

    def reply_after(self, peer: Peer, method: MethodId) -> float:
        return sum(each.reply_after(peer, method) for each in self._faults)

    def wants_stream(self, message: CallEvent) -> bool:
        return any(each.wants_stream(message) for each in self._faults)

    def finishes_streams(self) -> bool:
        return all(each.finishes_streams() for each in self._faults)

    def no_stream_left(self, peer: Peer) -> None:
        for each in self._faults:
            each.no_stream_left(peer)

    def stream_lost(self, peer: Peer) -> None:
        for each in self._faults:
            each.stream_lost(peer)

    def holds_events(self, audio_backlog: int) -> bool:
        return any(each.holds_events(audio_backlog) for each in self._faults)

    def accepts_stream(self, peer: Peer, unidirectional: bool) -> bool:
        return all(each.accepts_stream(peer, unidirectional) for each in self._faults)

    def admits(self, peers: int) -> bool:
        return all(each.admits(peers) for each in self._faults)

    def body(self, peer: Peer, method: MethodId, body: bytes) -> bytes:
        for each in self._faults:
            body = each.body(peer, method, body)
        return body

    def request(self, peer: Peer, method: MethodId, message: Any) -> Any:
        for each in self._faults:
            message = each.request(peer, method, message)
        return message

    def uplink(self, peer: Peer, stream: object, data: bytes) -> bytes:
        for each in self._faults:
            data = each.uplink(peer, stream, data)
        return data

    def heard(self, peer: Peer, frame: AudioFrame) -> AudioFrame | None:
        heard: AudioFrame | None = frame
        for each in self._faults:
            heard = None if heard is None else each.heard(peer, heard)
        return heard

    def odd(self, peer: Peer, what: Oddity) -> None:
        for each in self._faults:
            each.odd(peer, what)

    def kept(self, subscription: Subscription, event: CallEvent) -> bool:
        return all(each.kept(subscription, event) for each in self._faults)

    def replayed(self, subscription: Subscription, entries: list[Entry], connection_lost: bool) -> list[Entry]:
        for each in self._faults:
            entries = each.replayed(subscription, entries, connection_lost)
        return entries

    def waiting(self, subscription: Subscription, entries: list[Entry], others: list[Subscription]) -> list[Entry]:
        for each in self._faults:
            entries = each.waiting(subscription, entries, others)
        return entries
