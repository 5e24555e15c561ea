"""Frames: what delimits a message on a QUIC stream (PROTOCOL section 4).

A frame is ``u32 length | u32 method id | body``, little-endian. On unidirectional streams frames follow each other
without end and :class:`FrameDecoder` cuts them out of whatever chunks arrive. On bidirectional streams one frame is the
whole content; its length means two different things depending on who wrote it, and the end of the stream decides which:
:func:`decode_request`, :func:`decode_reply`. Bodies are envelopes, which :mod:`agentao_trio.envelope` reads and writes.

Blame is fixed here: bytes that break a rule raise ``RemoteProtocolError`` with a stable ``reason`` and the ``offset``
of the culprit, values that cannot be written raise ``LocalProtocolError``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from agentao_trio.envelope import holds_envelope
from agentao_trio.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "MAX_FRAME_LENGTH",
    "Frame",
    "FrameDecoder",
    "Reply",
    "Request",
    "decode_reply",
    "decode_request",
    "encode_frame",
    "encode_reply",
    "encode_request",
]

MAX_FRAME_LENGTH: Final = 1 << 20
"""The largest ``length`` field a reader accepts, in bytes (PROTOCOL section 4.3)."""

_U32 = struct.Struct("<I")
_HEADER = struct.Struct("<II")


# -- frames on unidirectional streams ---------------------------------------------------------------------------------


class Frame(NamedTuple):
    """One frame: whose method it is, and the bytes behind that, still undecoded."""

    method_id: int
    body: bytes


#: What the constructor of a NamedTuple does, without the detour: a third of what a frame costs to cut out.
_new_frame: Callable[[tuple[int, bytes]], Frame] = partial(tuple.__new__, Frame)


def encode_frame(method_id: int, body: bytes) -> bytes:
    """The frame as it goes on a unidirectional stream. Raises ``LocalProtocolError`` for what no frame can hold."""
    return _frame(method_id, body, uncounted=4)


def _frame(method_id: int, body: bytes, *, uncounted: int) -> bytes:
    """``uncounted`` is how many of the frame's first bytes its length leaves out: four, or none."""
    try:
        return _HEADER.pack(8 - uncounted + len(body), method_id) + body
    except struct.error:
        raise LocalProtocolError(
            f"a frame takes a method id of 0 to {2**32 - 1} and a body that its 32-bit length can count"
        ) from None


class FrameDecoder:
    """Cuts one unidirectional stream into frames, for any chunking of its bytes alike (PROTOCOL section 4.3).

    ``length`` is read as exclusive. Frames too short for a method id are padding: skipped, and counted in ``short``. A
    length above ``max_length`` cannot be skipped, because nothing says where the next frame would begin: the decoder is
    finished, ``error`` says why, and the stream should be abandoned while the session goes on.

    Holds at most one unfinished frame, so at most ``max_length`` + 4 bytes, and only bytes that have in fact arrived.
    """

    def __init__(self, max_length: int = MAX_FRAME_LENGTH) -> None:
        self.max_length = max_length
        self.short: int = 0
        self.error: RemoteProtocolError | None = None
        # A frame's beginning waits here. It is looked at again only when `_wanted` bytes are there, and a bytearray
        # grows in amortised constant time: together that keeps the price of a byte flat, however small the chunks.
        self._pending = bytearray()
        self._wanted = 0
        self._position = 0  # of the first byte not yet given out, from the start of the stream

    def __repr__(self) -> str:
        state = "finished" if self.error is not None else f"at byte {self._position}"
        return f"<FrameDecoder {state}, {len(self._pending)} bytes waiting, {self.short} short frames>"

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` completes, oldest first.

        When a length is too large, the frames before it are returned and ``error`` is set; every later call raises
        that ``RemoteProtocolError`` (reason ``frame_too_large``, ``offset`` counted from the start of the stream).
        """
        if self.error is not None:
            raise self.error
        if self._pending:
            self._pending += data
            if len(self._pending) < self._wanted:
                return []
            data = bytes(self._pending)
            self._pending.clear()
        frames: list[Frame] = []
        offset, available = 0, len(data)
        wanted = 4
        while available - offset >= 4:
            (length,) = _U32.unpack_from(data, offset)
            if length > self.max_length:
                self._position += offset
                self.error = RemoteProtocolError(
                    f"a frame claims {length} bytes, the limit is {self.max_length}",
                    reason="frame_too_large",
                    offset=self._position,
                )
                return frames
            end = offset + 4 + length
            if end > available:
                wanted = 4 + length
                break
            if length < 4:
                self.short += 1
            else:
                (method_id,) = _U32.unpack_from(data, offset + 4)
                frames.append(_new_frame((method_id, data[offset + 8 : end])))
            offset = end
        self._pending += data[offset:]
        self._wanted = wanted
        self._position += offset
        return frames

    def end(self) -> int:
        """How many bytes of an unfinished frame the stream's end (FIN or reset) cuts off; 0 is a clean end."""
        return len(self._pending)


# -- one frame per bidirectional stream -------------------------------------------------------------------------------


class Request(NamedTuple):
    """What a client sent on its stream; ``rpc_length`` is the length convention it did so in."""

    method_id: int
    body: bytes
    rpc_length: str


class Reply(NamedTuple):
    """What came back; ``form`` is ``exclusive`` or ``inclusive`` (framed), ``bare`` (envelope only) or ``none``."""

    form: str
    body: bytes


#: How many of a frame's own first bytes its length leaves out, by the name of the convention (PROTOCOL section 4.1).
_UNCOUNTED = {"exclusive": 4, "inclusive": 0}


def encode_request(method_id: int, body: bytes, *, rpc_length: str = "exclusive") -> bytes:
    """The whole content of a client-opened stream; FIN follows it.

    ``exclusive`` is the published convention, ``inclusive`` what the vendor's own clients send (PROTOCOL section 16.1).
    Raises ``LocalProtocolError``.
    """
    if rpc_length not in _UNCOUNTED:
        raise LocalProtocolError(f"rpc_length is 'exclusive' or 'inclusive', not {rpc_length!r}")
    return _frame(method_id, body, uncounted=_UNCOUNTED[rpc_length])


def decode_request(data: bytes) -> Request:
    """The request in ``data``, everything a client sent up to its FIN, in either length convention.

    Raises ``RemoteProtocolError``: ``truncated_frame`` where not even the header is there, ``bad_frame_length`` where
    the length fits neither convention.
    """
    size = len(data)
    if size < 8:
        raise RemoteProtocolError(
            f"a request of {size} bytes ends within its frame header", reason="truncated_frame", offset=size
        )
    length, method_id = _HEADER.unpack_from(data)
    if length == size - 4:
        return Request(method_id, data[8:], "exclusive")
    # An exclusive frame that lost its last four bytes has this length too; only its envelope tells the two apart.
    if length == size and holds_envelope(data, 8):
        return Request(method_id, data[8:], "inclusive")
    raise RemoteProtocolError(
        f"a request of {size} bytes gives its length as {length}", reason="bad_frame_length", offset=0
    )


def encode_reply(method_id: int, body: bytes, *, form: str) -> bytes:
    """The whole content of a stream's reply half, in any form a client has to understand. Raises
    ``LocalProtocolError``."""
    if form == "none":
        return b""
    if form == "bare":
        return body
    if form not in _UNCOUNTED:
        raise LocalProtocolError(f"a reply's form is 'exclusive', 'inclusive', 'bare' or 'none', not {form!r}")
    return _frame(method_id, body, uncounted=_UNCOUNTED[form])


def decode_reply(data: bytes, method_id: int) -> Reply:
    """The reply in ``data``, everything the gateway sent up to its FIN, to a request of ``method_id``.

    All forms in circulation are accepted (PROTOCOL sections 4.2 and 16.2), silence included. Raises
    ``RemoteProtocolError`` (``bad_response``) for anything else.
    """
    size = len(data)
    if size == 0:
        return Reply("none", b"")
    if size >= 8:
        length, answered = _HEADER.unpack_from(data)
        if answered == method_id and length in (size - 4, size):
            return Reply("inclusive" if length == size else "exclusive", data[8:])
    if holds_envelope(data, 0):
        return Reply("bare", data)
    raise RemoteProtocolError(
        f"a reply of {size} bytes is neither a frame of method {method_id} nor an envelope",
        reason="bad_response",
        offset=0,
    )
