"""Engine.IO 4 and Socket.IO 5 on the wire: what a server that sends text, and takes text, has to read and write.

Engine.IO carries messages over HTTP polling or a WebSocket and finds out whether the other side is still there.
Socket.IO puts events with acknowledgements into those messages. Binary attachments are refused: none of the live
events is binary. (Engine.IO protocol, revision 4; Socket.IO protocol, revision 5.)

Whatever comes from the other side either decodes or raises :class:`PacketError`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import Enum
from typing import Any

import attrs

__all__ = [
    "SEPARATOR",
    "EnginePacket",
    "EngineType",
    "PacketError",
    "SocketPacket",
    "SocketType",
    "decode_engine",
    "decode_payload",
    "decode_socket",
    "encode_payload",
    "encode_socket",
]

#: Between the packets of one HTTP body.
SEPARATOR = "\x1e"
#: Packets of one HTTP body, arguments of one event, digits of an acknowledgement's number, characters of a namespace.
MOST_PACKETS = 1000
MOST_ARGUMENTS = 64
MOST_DIGITS = 15
LONGEST_NAMESPACE = 200

#: What a client must not emit: names that its own end uses for what happens to the connection.
_RESERVED = frozenset({"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"})
_DIGITS = frozenset("0123456789")


class PacketError(ValueError):
    """What came is no packet that we take."""


class EngineType(Enum):
    """Engine.IO's packets, by their digit."""

    OPEN = "0"
    CLOSE = "1"
    PING = "2"
    PONG = "3"
    MESSAGE = "4"
    UPGRADE = "5"
    NOOP = "6"


class SocketType(Enum):
    """Socket.IO's packets, by their digit; the two with attachments are left out."""

    CONNECT = "0"
    DISCONNECT = "1"
    EVENT = "2"
    ACK = "3"
    CONNECT_ERROR = "4"


@attrs.frozen
class EnginePacket:
    """One packet of Engine.IO."""

    type: EngineType
    data: str = ""

    def encode(self) -> str:
        """The packet as one WebSocket text message, or as one part of an HTTP body."""
        return self.type.value + self.data


@attrs.frozen(kw_only=True)
class SocketPacket:
    """One packet of Socket.IO. ``data`` is an event's name and arguments, an answer's arguments, or an object."""

    type: SocketType
    namespace: str = "/"
    data: Any = None
    #: What the acknowledgement of this event, or this acknowledgement, refers to.
    ack: int | None = None


def decode_engine(text: str) -> EnginePacket:
    """Read one packet. Raises :class:`PacketError`."""
    try:
        return EnginePacket(EngineType(text[:1]), text[1:])
    except ValueError:
        raise PacketError(f"no packet of Engine.IO begins with {text[:1]!a}") from None


def decode_payload(body: str) -> list[EnginePacket]:
    """Read the packets of one HTTP body. Raises :class:`PacketError`."""
    if body.count(SEPARATOR) >= MOST_PACKETS:
        raise PacketError(f"more than {MOST_PACKETS} packets at once")
    return [decode_engine(part) for part in body.split(SEPARATOR)]


def encode_payload(packets: Iterable[str]) -> str:
    """Encoded packets as one HTTP body."""
    return SEPARATOR.join(packets)


def encode_socket(packet: SocketPacket) -> str:
    """Write one packet, to be the data of an Engine.IO message."""
    namespace = f"{packet.namespace}," if packet.namespace != "/" else ""
    ack = "" if packet.ack is None else str(packet.ack)
    data = "" if packet.data is None else json.dumps(packet.data, separators=(",", ":"), allow_nan=False)
    return f"{packet.type.value}{namespace}{ack}{data}"


def decode_socket(text: str) -> SocketPacket:
    """Read one packet, the data of an Engine.IO message. Raises :class:`PacketError`."""
    try:
        kind = SocketType(text[:1])
    except ValueError:
        raise PacketError(f"no packet of Socket.IO that is taken here begins with {text[:1]!a}") from None
    position, namespace = 1, "/"
    if text.startswith("/", position):
        end = text.find(",", position)
        end = len(text) if end < 0 else end
        namespace, position = text[position:end], end + 1
        if len(namespace) > LONGEST_NAMESPACE:
            raise PacketError("the name of the namespace is too long")
        namespace = namespace.partition("?")[0]
    digits = position
    while digits < len(text) and text[digits] in _DIGITS and digits - position <= MOST_DIGITS:
        digits += 1
    if digits - position > MOST_DIGITS:
        raise PacketError("the number of the acknowledgement is too long")
    ack = int(text[position:digits]) if digits > position else None
    data = _decode_data(text[digits:]) if digits < len(text) else None
    _check(kind, ack, data)
    return SocketPacket(type=kind, namespace=namespace, data=data, ack=ack)


def _decode_data(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise PacketError("the data are nested too deeply") from None
    except ValueError as error:  # also an integer with too many digits to be converted
        raise PacketError(f"the data are no JSON: {error}") from None


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is none")


def _check(kind: SocketType, ack: int | None, data: Any) -> None:
    """Hold the data against what the type asks for. Raises :class:`PacketError`."""
    match kind:
        case SocketType.CONNECT | SocketType.CONNECT_ERROR:
            fits = ack is None and (data is None or isinstance(data, dict))
        case SocketType.DISCONNECT:
            fits = ack is None and data is None
        case SocketType.EVENT:
            fits = isinstance(data, list) and 0 < len(data) <= MOST_ARGUMENTS
            fits = fits and isinstance(data[0], str) and data[0] not in _RESERVED
        case SocketType.ACK:
            fits = ack is not None and isinstance(data, list) and len(data) <= MOST_ARGUMENTS
    if not fits:
        raise PacketError(f"the data do not fit a packet of type {kind.name}")
