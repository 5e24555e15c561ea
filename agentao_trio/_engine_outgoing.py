"""What our engine fills packets with, and the packets it fills: the sending half of a stream, and a builder.

One of the rooms of :mod:`agentao_trio._engine`, which says what they have in common.

aioquic keeps a set of ranges of what a stream still has to send and another of what was acknowledged; with a frame of
audio in every packet of a call both have one range at most, and minding them costs more than the frame. Here what was
never sent is what lies behind the highest offset, and acknowledgements that come in order move one number. Ranges are
kept for what was lost and for what was acknowledged out of order, by aioquic's own code.

aioquic's builder writes packets of all kinds, several to a datagram, padded where that is asked for. Packets with
streams are of one kind (1-RTT, RFC 9000 §17.3.1), one to a datagram and never padded to its size.
"""

from __future__ import annotations

import struct
from typing import Any

from aioquic import tls
from aioquic.buffer import encode_uint_var
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import PACKET_FIXED_BIT, PACKET_NUMBER_MAX_SIZE, QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import (
    PACKET_NUMBER_SEND_SIZE,
    QuicDeliveryState,
    QuicPacketBuilder,
    QuicSentPacket,
)
from aioquic.quic.stream import QuicStream, QuicStreamSender

__all__ = ["LEAST_CUT", "Outgoing", "PacketBuilder"]

#: A piece that would fill less than this is left for the next packet: a frame of audio is not torn in two, so that one
#: lost packet delays as few calls as it can.
LEAST_CUT = 600
#: Behind the stream's id in a STREAM frame (RFC 9000 §19.8): offset and length, as integers of four and of two bytes,
#: or of eight and two from the first gigabyte on.
_TAIL, _LONG_TAIL = struct.Struct(">IH"), struct.Struct(">QH")
_TAIL_LIMIT = 1 << 30
_ACKED = QuicDeliveryState.ACKED


class PacketBuilder(QuicPacketBuilder):
    """Builds packets with streams. aioquic's own methods write all other frames into them."""

    def __init__(self, crypto: CryptoPair, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._crypto = self._packet_crypto = crypto
        self._packet_type = QuicPacketType.ONE_RTT
        self._header_size = 1 + len(self._peer_cid) + PACKET_NUMBER_SEND_SIZE

    def begin(self) -> bool:
        """Begin a packet. Whether there may be another one: an address that is not validated is sent little."""
        if self.max_total_bytes is not None:
            self._buffer_capacity = min(self._buffer_capacity, self.max_total_bytes - self._total_bytes)
        self._flight_capacity = self._buffer_capacity
        if self.max_flight_bytes is not None:
            self._flight_capacity = min(self._buffer_capacity, self.max_flight_bytes - self._flight_bytes)
        self._packet = QuicSentPacket(
            tls.Epoch.ONE_RTT, False, False, False, self._packet_number, QuicPacketType.ONE_RTT
        )
        self.quic_logger_frames = self._packet.quic_logger_frames
        #: Who said what in it: a sender, the offset of its first byte and the one behind its last, and so on. One list
        #: for all, because it is looked at again when the packet is acknowledged, and has left the cache by then.
        self.said: list[Any] = []
        #: Where in its buffer the packet has to end, so that its tag still fits.
        self.limit = self._flight_capacity - self._crypto.aead_tag_size
        self._buffer.seek(self._header_size)
        return self._buffer_capacity > self._header_size

    def end(self) -> bool:
        """Seal the packet, unless it is empty; whether it was not."""
        buffer, packet = self._buffer, self._packet
        assert packet is not None
        size = buffer.tell()
        self._packet = None
        if self.said:
            packet.in_flight = packet.is_ack_eliciting = True
            packet.delivery_handlers.append((_on_packet_delivery, (self.said,)))
        if size == self._header_size:
            return False
        least = self._header_size + PACKET_NUMBER_MAX_SIZE - PACKET_NUMBER_SEND_SIZE
        if size < least:  # header protection needs so much to sample (RFC 9001 §5.4.2)
            buffer.push_bytes(bytes(least - size))
            packet.in_flight = True
            size = least
        number, crypto = self._packet_number, self._crypto
        first = PACKET_FIXED_BIT | self._spin_bit << 5 | crypto.key_phase << 2 | PACKET_NUMBER_SEND_SIZE - 1
        datagram = crypto.encrypt_packet(
            bytes((first,)) + self._peer_cid + (number & 0xFFFF).to_bytes(PACKET_NUMBER_SEND_SIZE, "big"),
            buffer.data_slice(self._header_size, size),
            number,
        )
        packet.sent_bytes = len(datagram)
        if packet.in_flight:
            self._flight_bytes += packet.sent_bytes
        self._total_bytes += packet.sent_bytes
        self._packets.append(packet)
        self._datagrams.append(datagram)
        self._packet_number = number + 1
        return True

    @property
    def last_in_flight(self) -> bool:
        """Whether the packet sealed last counts for the congestion window."""
        return self._packets[-1].in_flight

    def flush(self) -> tuple[list[bytes], list[QuicSentPacket]]:
        return self._datagrams, self._packets


class Outgoing(QuicStreamSender):
    """The sending half of a stream. Its ``_pending`` are what was lost; what was never sent is not among them."""

    def __init__(self, stream: QuicStream, talkative: dict[QuicStream, bool]) -> None:
        super().__init__(stream.stream_id, writable=True)
        self._stream = stream
        self._talkative = talkative
        assert stream.stream_id is not None
        name = encode_uint_var(stream.stream_id)
        # RFC 9000 §19.8: with an offset and a length, and with FIN where it ends the stream.
        self._head = bytes((QuicFrameType.STREAM_BASE | 6,)) + name
        self._last_head = bytes((QuicFrameType.STREAM_BASE | 7,)) + name
        # What one write has brought is kept as it came; nearly always it is gone before the next.
        self._buffer: bytes | bytearray = b""  # type: ignore[assignment]  # aioquic's own code gets a bytearray
        self._lost = False  # something has to be sent again
        self._out_of_order = False  # something was acknowledged before what lies before it

    def write(self, data: bytes, end_stream: bool = False) -> None:
        if self._buffer_fin is not None or self._reset_error_code is not None:
            raise RuntimeError("nothing can be written after FIN or reset")
        if data or end_stream:
            self.buffer_is_empty = False
        if self._buffer:
            self._changeable_buffer().extend(data)
        else:
            self._buffer = bytes(data)  # the same object, unless it might change
        self._buffer_stop += len(data)
        if end_stream:
            self._buffer_fin = self._buffer_stop
            self._pending_eof = True
        self._talkative.setdefault(self._stream, False)

    def _changeable_buffer(self) -> bytearray:
        if not isinstance(self._buffer, bytearray):
            self._buffer = bytearray(self._buffer)
        return self._buffer

    def write_new(self, builder: PacketBuilder, credit: int) -> int:
        """Write what there is to send, where it is new data, the peer takes all of it, and the packet has room for it.
        How many bytes that was; 0 where it is not so."""
        stream, buffer = self._stream, builder._buffer
        start, stop = self.highest_offset, self._buffer_stop
        size = stop - start
        head = self._head
        if (
            self._lost
            or self._buffer_fin is not None
            or size > credit
            or stop > stream.max_stream_data_remote
            or stop > _TAIL_LIMIT
            or size > builder.limit - buffer.tell() - len(head) - _TAIL.size
            or stream.is_blocked
        ):
            return 0
        data = self._buffer
        if size < len(data):
            data = data[-size:]
        buffer.push_bytes(head + _TAIL.pack(0x8000_0000 | start, 0x4000 | size) + data)
        builder.said += (self, start, stop)
        self.highest_offset = stop
        self.buffer_is_empty = True
        return size

    def write_frames(self, builder: PacketBuilder, credit: int) -> tuple[bool, int]:
        """Write what there is to send into the packet. Whether that is all of it, or all that the peer allows, and how
        much of ``credit`` was used; if it is not all, the packet is full."""
        stream = self._stream
        packet, buffer = builder._packet, builder._buffer
        assert packet is not None
        limit = builder.limit
        began = self.highest_offset
        allowed = began + credit
        if allowed > stream.max_stream_data_remote:
            allowed = stream.max_stream_data_remote
        while not self.buffer_is_empty:
            if self._lost:
                first = self._pending[0]
                start, stop = first.start, first.stop
            else:
                start, stop = self.highest_offset, self._buffer_stop
                if stop > allowed:
                    if start >= allowed:
                        break
                    stop = allowed
                if stream.is_blocked:
                    break
            size = stop - start
            tail, mark = (_TAIL, 0x8000_0000) if start < _TAIL_LIMIT else (_LONG_TAIL, 0xC000_0000_0000_0000)
            room = limit - buffer.tell() - len(self._head) - tail.size
            if room < size:
                if room < LEAST_CUT:
                    return False, self.highest_offset - began
                size, stop = room, start + room
            fin = stop == self._buffer_fin
            base = self._buffer_start
            buffer.push_bytes(
                (self._last_head if fin else self._head)
                + tail.pack(mark | start, 0x4000 | size)
                + self._buffer[start - base : stop - base]
            )
            packet.in_flight = packet.is_ack_eliciting = True
            packet.delivery_handlers.append((self.on_data_delivery, (start, stop, fin)))
            if self._lost:
                if size:
                    self._pending.subtract(start, stop)
                self._lost = len(self._pending) > 0
            else:
                self.highest_offset = stop
            if fin:
                self._pending_eof = False
            self.buffer_is_empty = self.highest_offset == self._buffer_stop and not (self._lost or self._pending_eof)
        return True, self.highest_offset - began

    def on_data_delivery(self, delivery: QuicDeliveryState, start: int, stop: int, fin: bool) -> None:
        if delivery is _ACKED:
            if (
                start == self._buffer_start
                and not self._out_of_order
                and self._buffer_fin is None
                and self._reset_error_code is None
            ):
                if stop == self._buffer_stop:
                    self._buffer = b""
                else:
                    del self._changeable_buffer()[: stop - start]
                self._buffer_start = stop
            else:
                self._changeable_buffer()
                super().on_data_delivery(delivery, start, stop, fin)
                self._out_of_order = len(self._acked) > 0
        else:
            super().on_data_delivery(delivery, start, stop, fin)
            self._lost = len(self._pending) > 0
            self._talkative.setdefault(self._stream, False)


def _on_packet_delivery(delivery: QuicDeliveryState, said: list[Any]) -> None:
    each = iter(said)
    for sender, start, stop in zip(each, each, each, strict=True):
        sender.on_data_delivery(delivery, start, stop, False)
