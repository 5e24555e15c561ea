"""How our engine reads the packets that nearly all are: 1-RTT, on the one path there is, with streams and ACKs.

One of the rooms of :mod:`agentao_trio._engine`, which says what they have in common.

aioquic reads every datagram as if it could be anything: several packets of any kind, from anywhere, with frames of any
kind, each of which it looks up with what is allowed where. Here a datagram that is *ordinary* takes a shorter way, and
everything else, be it only one frame of another kind, goes on to aioquic. What is ordinary is decided before anything
is read (:meth:`Incoming._is_ordinary`); a packet is checked in the order, and with the results, of aioquic's
``receive_datagram``: decryption, duplicates, reserved bits. A STREAM frame that is new, in order, within
the peer's credit and not the last of its stream is taken here; any other one is read by aioquic from its first byte.
"""

from __future__ import annotations

from typing import Any

from aioquic import tls
from aioquic._buffer import Buffer, BufferReadError
from aioquic._crypto import CryptoError
from aioquic.quic import events
from aioquic.quic.connection import QuicConnectionError, QuicConnectionState, QuicNetworkPath, QuicReceiveContext
from aioquic.quic.crypto import KeyUnavailableError
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.recovery import MAX_ACK_RANGES

from agentao_trio._engine_stock import StockEngine

__all__ = ["Incoming"]


class Incoming(StockEngine):
    """aioquic's connection with a short way for ordinary datagrams."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._cid_end = 1 + self._configuration.connection_id_length
        self._heard_at = 0.0
        self._is_quiet = False  # aioquic itself has nothing to say, whatever the streams have

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        if self._is_ordinary(data, addr):
            self.datagrams_ordinary += 1
            self._receive_ordinary(data, now)
        else:
            self._is_quiet = False
            super().receive_datagram(data, addr, now)

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self._crypto, self._space = self._cryptos[tls.Epoch.ONE_RTT], self._spaces[tls.Epoch.ONE_RTT]

    def _is_ordinary(self, data: bytes, addr: Any) -> bool:
        """Whether a datagram is one packet with a short header (RFC 9000 §17.3.1), to the connection id that is in use
        anyway, from where the peer is reached; and we are neither before the end of the handshake nor ending."""
        paths = self._network_paths
        return (
            self._handshake_confirmed
            and paths[0].addr == addr
            and paths[0].is_validated
            and b"\x40" <= data[:1] < b"\x80"
            and data[1 : self._cid_end] == self.host_cid
            and self._quic_logger is None
            and not self._close_pending
            and self._state is QuicConnectionState.CONNECTED
        )

    def next_event(self) -> events.QuicEvent | None:
        # aioquic looks by having an exception raised, which is what it costs to find nothing.
        return self._events.popleft() if self._events else None

    @property
    def largest_acknowledged(self) -> int:
        return self._space.largest_acked_packet

    def _receive_ordinary(self, data: bytes, now: float) -> None:
        space = self._space
        try:
            header, payload, number = self._crypto.decrypt_packet(data, self._cid_end, space.expected_packet_number)
        except (CryptoError, KeyUnavailableError):
            return  # damaged, forged, or a stateless reset, which looks the same
        if number in space.received_packets:
            return
        if header[0] & 0x18:
            self.close(QuicErrorCode.PROTOCOL_VIOLATION, QuicFrameType.PADDING, "Reserved bits must be zero")
            return
        if number > space.expected_packet_number:
            space.expected_packet_number = number + 1
        if number > self._spin_highest_pn:
            spin = header[0] >> 5 & 1 == 1
            self._spin_bit = not spin if self._is_client else spin
            self._spin_highest_pn = number
        try:
            is_ack_eliciting = self._read_frames(payload, now)
        except QuicConnectionError as error:
            self._logger.warning(error)
            self.close(error.error_code, error.frame_type, error.reason_phrase)
        if self._close_pending or self._state is not QuicConnectionState.CONNECTED:
            return
        if now != self._heard_at:  # the rest of a burst would only say it again
            self._heard_at = now
            self._close_at = now + self._idle_timeout()
        self._ack_eliciting_sent_since_receipt = False
        is_next = number == space.largest_received_packet + 1
        if number > space.largest_received_packet:
            space.largest_received_packet = number
            space.largest_received_time = now
        space.ack_queue.add(number)
        space.received_packets.add(number)
        if len(space.ack_queue) > MAX_ACK_RANGES:
            space.ack_queue.shift()
        if is_ack_eliciting and not is_next:
            space.ack_at = now  # something is missing or late: the sender wants to know (RFC 9000 §13.2.1)
        elif is_ack_eliciting and space.ack_at is None:
            space.ack_at = now + self._ack_delay

    def _read_frames(self, plain: bytes, now: float) -> bool:
        """Read the frames of a packet; whether any of them asks for an acknowledgement."""
        buffer = Buffer(data=plain)
        pull = buffer.pull_uint_var
        size = len(plain)
        is_ack_eliciting = False
        position = 0
        while position < size:
            kind = plain[position]
            try:
                if kind & 0xF9 == QuicFrameType.STREAM_BASE:  # without FIN
                    buffer.seek(position + 1)
                    stream_id = pull()
                    start = pull() if kind & 4 else 0
                    data = buffer.pull_bytes(pull() if kind & 2 else size - buffer.tell())
                    if not self._took(stream_id, start, data):
                        break
                    is_ack_eliciting = True
                elif kind == QuicFrameType.ACK:
                    buffer.seek(position + 1)
                    lost = self.packets_lost
                    self._handle_ack_frame(self._context(now), kind, buffer)
                    self._is_quiet = self._is_quiet and self.packets_lost == lost
                else:
                    break
            except BufferReadError:
                break  # aioquic says what is wrong with it
            position = buffer.tell()
        if position < size or not size:
            self._is_quiet = False
            return self._payload_received(self._context(now), plain[position:])[0] or is_ack_eliciting
        return is_ack_eliciting

    def _took(self, stream_id: int, start: int, data: bytes) -> bool:
        """Whether a frame's data is the next of its stream and nothing is the matter with it; it is delivered then."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return False
        receiver, credit = stream.receiver, self._local_max_data
        size = len(data)
        end = start + size
        if (
            start != receiver._buffer_start
            or start != receiver.highest_offset  # nothing waits behind a gap
            or not size
            or receiver.is_finished
            or receiver._final_size is not None
            or end > stream.max_stream_data_local
            or credit.used + size > credit.value
        ):
            return False
        receiver.highest_offset = receiver._buffer_start = end
        credit.used += size
        self._events.append(events.StreamDataReceived(data=data, end_stream=False, stream_id=stream_id))
        return True

    def _context(self, now: float) -> QuicReceiveContext:
        path: QuicNetworkPath = self._network_paths[0]
        return QuicReceiveContext(
            epoch=tls.Epoch.ONE_RTT,
            host_cid=self.host_cid,
            network_path=path,
            quic_logger_frames=None,
            time=now,
            version=None,
        )
