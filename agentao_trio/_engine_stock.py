"""aioquic's connection with its behaviour untouched, and the looks into it that a driver needs.

One of the rooms of :mod:`agentao_trio._engine`, which says what they have in common.
"""

from __future__ import annotations

from typing import Any

from aioquic import tls
from aioquic.quic import events
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE
from aioquic.quic.connection import END_STATES, QuicConnection, QuicConnectionState, stream_is_client_initiated
from aioquic.quic.stream import QuicStreamSender
from cryptography.hazmat.primitives import serialization

from agentao_trio._engine_congestion import COUNTING, MediaRate

__all__ = ["MAX_CLOSE_REASON", "StockEngine", "backlog", "unsent"]

#: Bytes of a close reason that are sent; a CLOSE frame has to fit one datagram of 1200 bytes.
MAX_CLOSE_REASON = 512


def backlog(sender: QuicStreamSender) -> int:
    """Bytes written to a stream that the peer has not acknowledged, sent or not. 0 once it was reset."""
    return len(sender._buffer) if sender._reset_error_code is None else 0


def unsent(sender: QuicStreamSender) -> int:
    """Bytes written to a stream that no packet has carried yet. 0 once it was reset."""
    return sender._buffer_stop - sender.highest_offset if sender._reset_error_code is None else 0


class StockEngine(QuicConnection):
    """aioquic's connection with its behaviour untouched, and the looks into it that a driver needs.

    ``max_inbound_streams``: how many streams of each direction the peer may have open (RFC 9000 §4.6).
    """

    #: Datagrams that took the short way of the receive path; aioquic has none.
    datagrams_ordinary = 0

    def __init__(self, *, max_inbound_streams: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        #: For who writes at the pace of a clock, to say how much. To aioquic that makes no difference.
        self.media: MediaRate = MediaRate()
        for limit in (self._local_max_streams_bidi, self._local_max_streams_uni):
            limit.value = limit.sent = max_inbound_streams

    def end_trace(self) -> None:
        """Have the qlog written, if there is one. aioquic does so three PTOs later, when nobody is there any more."""
        if self._quic_logger is not None and self._configuration.quic_logger is not None:
            self._configuration.quic_logger.end_trace(self._quic_logger)
            self._quic_logger = None

    # -- streams

    def open_stream(self, *, unidirectional: bool) -> int | None:
        """Create the next stream of ours and return its id; ``None`` while the peer's MAX_STREAMS is used up.

        aioquic would park a stream beyond the limit silently, and does not reserve an id before something is written.
        """
        if self.room_for_streams(unidirectional=unidirectional) <= 0:
            return None
        stream_id = self.get_next_available_stream_id(is_unidirectional=unidirectional)
        self.send_stream_data(stream_id, b"")
        return stream_id

    def room_for_streams(self, *, unidirectional: bool) -> int:
        """How many more streams of ours the peer allows now."""
        limit = self._remote_max_streams_uni if unidirectional else self._remote_max_streams_bidi
        return limit - self.get_next_available_stream_id(is_unidirectional=unidirectional) // 4

    def sender(self, stream_id: int) -> QuicStreamSender:
        """The sending half of a stream: what ``send_stream_data`` writes to, for who writes often."""
        return self._get_or_create_stream_for_send(stream_id).sender

    def is_drained(self) -> bool:
        """Whether the peer has acknowledged everything that was written: data, FINs and resets."""
        for stream in self._streams.values():
            sender = stream.sender
            if sender.is_finished:
                continue
            if sender._buffer or sender._buffer_fin is not None or sender._reset_error_code is not None:
                return False
        return True

    def stop(self, stream_id: int, code: int) -> None:
        """STOP_SENDING; nothing happens if the stream has ended already (aioquic would raise)."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.receiver.is_finished:
            self.stop_stream(stream_id, code)

    def discard(self, stream_id: int) -> bool:
        """Whether both directions of a stream have ended and nothing of it is remembered. For the driver to ask once
        its program is done with the stream, until it is so."""
        return self._stream_is_discarded(stream_id)

    # -- credit: who reads is no concern of aioquic's

    def consumed(self, stream_id: int, count: int, unread: int) -> bool:
        """The program took ``count`` bytes of a stream; ``unread`` bytes that were delivered are still waiting for
        it. Whether the peer is to be told of new credit."""
        return False

    def cut_short(self, stream_id: int) -> None:
        """The peer reset a stream; what was received of it beyond a gap will never be delivered."""

    def release(self, stream_id: int) -> None:
        """The program is done with a stream that the peer opened, and so is the engine."""

    # -- the size of datagrams: aioquic does not look for more

    @property
    def datagram_size(self) -> int:
        """How many bytes of UDP payload a datagram may have."""
        return SMALLEST_MAX_DATAGRAM_SIZE

    def search_mtu(self, most: int) -> None:
        """Find out whether the path carries datagrams of more than 1200 bytes, and up to ``most``."""

    def too_long(self) -> bool:
        """A datagram was too long for this machine or the path. Whether shorter ones can be sent instead."""
        return False

    # -- the connection

    def is_initiator(self, stream_id: int) -> bool:
        """Whether a stream of this id is opened by our side (RFC 9000 §2.1)."""
        return stream_is_client_initiated(stream_id) == self._is_client

    @property
    def has_peer(self) -> bool:
        """Whether any packet of the peer's could be decrypted."""
        return self._state is not QuicConnectionState.FIRSTFLIGHT

    @property
    def end(self) -> events.ConnectionTerminated | None:
        """Why the connection is over, as soon as that is known; aioquic reports it only three PTOs later."""
        event = self._close_event
        return event if event is not None and self._state in END_STATES else None

    @property
    def end_is_remote(self) -> bool:
        """Whether it was the peer's CLOSE frame that ended the connection."""
        return self._state is QuicConnectionState.DRAINING

    @property
    def peer_certificate(self) -> Any:
        """The certificate the peer presented (``cryptography.x509.Certificate``), or ``None``."""
        return self.tls._peer_certificate

    @property
    def peer_certificate_der(self) -> bytes | None:
        """The same as bytes, for those who are not to depend on that library."""
        certificate = self.peer_certificate
        return None if certificate is None else certificate.public_bytes(serialization.Encoding.DER)

    def acknowledge(self, now: float) -> None:
        """Let an acknowledgement that waits for company go with the next datagrams."""
        space = self._spaces.get(tls.Epoch.ONE_RTT)
        if space is not None and space.ack_at is not None:
            space.ack_at = min(space.ack_at, now)

    def close_with(self, code: int, reason: str) -> None:
        """Queue an application CLOSE; a reason that would not fit a datagram is cut (aioquic would raise)."""
        self.close(error_code=code, reason_phrase=reason.encode()[:MAX_CLOSE_REASON].decode(errors="ignore"))

    @property
    def timer(self) -> float | None:
        """When ``handle_timer`` is due; ``None`` before the first datagram and after the end, where aioquic raises."""
        if self._close_at is None or self._state is QuicConnectionState.TERMINATED:
            return None
        return self.get_timer()

    @property
    def largest_acknowledged(self) -> int:
        """The newest 1-RTT packet the peer has acknowledged. That it grows shows that both directions work."""
        return self._spaces[tls.Epoch.ONE_RTT].largest_acked_packet

    @property
    def rtt(self) -> float:
        """Smoothed round-trip time in seconds; 0.0 before the first sample."""
        return self._loss._rtt_smoothed

    @property
    def congestion_window(self) -> int:
        return self._loss.congestion_window

    @property
    def bytes_in_flight(self) -> int:
        return self._loss.bytes_in_flight

    @property
    def packets_lost(self) -> int:
        """Packets declared lost by loss detection (RFC 9002 §6.1)."""
        controller = self._loss._cc
        assert isinstance(controller, COUNTING)
        return controller.packets_lost

    @property
    def stream_count(self) -> int:
        """Streams, of either side, that have not ended in both directions."""
        return len(self._streams)
