"""Our engine: aioquic's connection, with a send path and with credit of its own.

One of the rooms of :mod:`agentao_trio._engine`, which says what they have in common.

Theory of operation
-------------------
*Whoever has something to say.* For every packet aioquic asks all streams whether they have a limit to announce, and
then all of them again whether they have data: its cost per packet grows with the streams that are open. Here a stream
that gets something to say is put into ``_talkative``, whose order is the order of turns; packets are filled from its
front. A stream leaves it when all is said, or when the peer's flow control forbids the rest; the latter wait
in ``_blocked`` until the peer raises any of its limits. What makes a stream talkative is in one place each:

==============================================  =====================================================
data, FIN, reset or stop by the program         ``Outgoing.write``, ``reset_stream``, ``stop_stream``
new credit for the peer                         ``consumed``, ``cut_short``
a reset in answer to the peer's STOP_SENDING    ``_handle_stop_sending_frame``
a packet with any of it was lost                ``_on_delivery``, ``Outgoing.on_data_delivery``
the peer raised a limit                         ``_unblock``
==============================================  =====================================================

Nearly always it is data, and then nothing else needs to be looked at: ``_talkative`` tells of each stream whether there
is more, a limit, a reset or a stop.

All that is not about streams (the handshake, connection ids, paths, PING) aioquic writes itself: its own method is
called first, and shown no streams. Once that method has come to its end there is nothing of the kind until something
has happened, and it is not called again (``_is_quiet``): until the timer, or a datagram that is not ordinary, or a
loss, or new credit for the peer. Acknowledgements ride along with streams.

*Credit follows consumption.* aioquic doubles a limit (MAX_DATA, MAX_STREAM_DATA, RFC 9000 §4.1) as soon as half of
it has arrived, whether or not anybody read it, and lets the peer open a stream for each one that ended (§4.6),
whether or not anybody took it. Here a limit is what the program has consumed plus a fixed window, and a stream
counts against the peer's allowance until the program is done with it. A reader that stalls therefore stops the
sender.
"""

from __future__ import annotations

from typing import Any

from aioquic._buffer import Buffer
from aioquic.quic import events
from aioquic.quic.connection import (
    CONNECTION_LIMIT_FRAME_CAPACITY,
    MAX_STREAM_DATA_FRAME_CAPACITY,
    Limit,
    QuicConnectionState,
    QuicNetworkPath,
    QuicReceiveContext,
)
from aioquic.quic.packet import QuicFrameType, pull_quic_transport_parameters
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder, QuicPacketBuilderStop
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream, QuicStreamSender

from agentao_trio._engine_congestion import MediaPacer, MediaWindow
from agentao_trio._engine_incoming import Incoming
from agentao_trio._engine_mtu import SIZES, PathMTU
from agentao_trio._engine_outgoing import Outgoing, PacketBuilder

__all__ = ["Engine"]

#: Seconds that an acknowledgement waits for data to ride along with: a little more than there is between two deadlines
#: of the packet clock. aioquic would send it after one millisecond, by itself.
ACK_DELAY = 0.006


class Engine(Incoming):
    """aioquic's connection as calls need it; the header of this file says how it differs, and why."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Streams that have something to say, in the order of their turns, and whether it is more than data; and those
        # that may not say it yet.
        self._talkative: dict[QuicStream, bool] = {}
        self._blocked: dict[QuicStream, None] = {}

        self._connection_window = self._configuration.max_data
        self._stream_window = self._configuration.max_stream_data
        self._connection_consumed = 0

        assert isinstance(self._loss._cc, MediaWindow)
        self._congestion = self._loss._cc
        self.media = self._congestion.media
        self._loss._pacer = MediaPacer(self.media, max_datagram_size=self._max_datagram_size)
        self._ack_delay = ACK_DELAY

        self._path_mtu = PathMTU()
        self._remote_max_datagram = SIZES[-1]  # unless the peer takes less (RFC 9000 §18.2)

    # -- who has something to say

    def sender(self, stream_id: int) -> QuicStreamSender:
        stream = self._streams.get(stream_id)
        if stream is None or not isinstance(stream.sender, Outgoing):
            stream = self._get_or_create_stream_for_send(stream_id)
            if stream.sender._reset_error_code is None:  # or it refuses by itself to be written to
                stream.sender = Outgoing(stream, self._talkative)
            self._is_quiet = False  # a stream beyond the limit of the peer has to be told of
        return stream.sender

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        self.sender(stream_id).write(data, end_stream)

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        super().reset_stream(stream_id, error_code)
        if (stream := self._streams.get(stream_id)) is not None:  # or it has ended and is forgotten
            self._talkative[stream] = True

    def stop_stream(self, stream_id: int, error_code: int) -> None:
        super().stop_stream(stream_id, error_code)
        self._talkative[self._streams[stream_id]] = True

    def handle_timer(self, now: float) -> None:
        self._is_quiet = False
        super().handle_timer(now)

    def get_timer(self) -> float | None:
        if not self._is_quiet:
            return super().get_timer()
        # What is left of aioquic's: the handshake is over, and so is the validation of paths.
        loss, space = self._loss, self._space
        self._loss_at = space.loss_time
        if self._loss_at is None and space.ack_eliciting_in_flight:
            patience = loss.get_probe_timeout() * 2**loss._pto_count
            self._loss_at = loss._time_of_last_sent_ack_eliciting_packet + patience
        return min(at for at in (self._close_at, space.ack_at, self._loss_at, self._pacing_at) if at is not None)

    def discard(self, stream_id: int) -> bool:
        stream = self._streams.get(stream_id)
        if stream is not None and stream.is_finished:
            del self._streams[stream_id]
            self._talkative.pop(stream, None)
            self._blocked.pop(stream, None)
        return super().discard(stream_id)

    def _handle_stop_sending_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        super()._handle_stop_sending_frame(context, frame_type, buf)
        event = self._events[-1]
        assert isinstance(event, events.StopSendingReceived)
        self._talkative[self._streams[event.stream_id]] = True

    def _on_delivery(self, delivery: QuicDeliveryState, stream: QuicStream) -> None:
        # Called after the stream's own handler, which has noted what it has to say again.
        if delivery is not QuicDeliveryState.ACKED:
            self._talkative[stream] = True

    def _on_max_stream_data_delivery(self, delivery: QuicDeliveryState, stream: QuicStream) -> None:
        super()._on_max_stream_data_delivery(delivery, stream)
        self._on_delivery(delivery, stream)

    def _handle_max_data_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        super()._handle_max_data_frame(context, frame_type, buf)
        self._unblock()

    def _handle_max_stream_data_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        super()._handle_max_stream_data_frame(context, frame_type, buf)
        self._unblock()

    def _unblock_streams(self, is_unidirectional: bool) -> None:
        super()._unblock_streams(is_unidirectional)
        self._unblock()

    def _unblock(self) -> None:
        for stream in self._blocked:
            self._talkative.setdefault(stream, False)
        self._blocked.clear()

    # -- saying it

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        self._congestion.advance(now)
        is_probe = self._probe_pending
        if self._is_quiet and not (self._close_pending or self._ping_pending):
            self._pacing_at = None
            datagrams = []
        else:
            self._is_quiet = False
            datagrams = super().datagrams_to_send(now)
        if self._state is QuicConnectionState.CONNECTED and self._crypto.send.is_valid():
            acknowledge_at = self._space.ack_at
            if self._talkative or (acknowledge_at is not None and acknowledge_at <= now):
                datagrams += self._write_streams(now, is_probe=is_probe)
            # Not on a path that the peer has just moved to: what may be sent there is little (RFC 9000 §8.1).
            if self._handshake_confirmed and self._network_paths[0].is_validated:
                size = self._path_mtu.next_probe(now, self._congestion.packets_lost)
                if size is not None:
                    datagrams += self._write_mtu_probe(size, now)
        return datagrams

    def _write_application(self, builder: QuicPacketBuilder, network_path: QuicNetworkPath, now: float) -> None:
        space = self._space
        hides = self._crypto.send.is_valid()
        streams, self._streams = self._streams, {}
        acknowledge_at = space.ack_at
        if hides:
            space.ack_at = None  # acknowledgements ride along with data
        self._streams_queue.clear()  # aioquic's own order of turns
        try:
            super()._write_application(builder, network_path, now)
            # It came to its end, so all is said; with a full window or an empty pacer it would not be.
            self._is_quiet = (
                self._handshake_confirmed
                and self._pacing_at is None
                and network_path.is_validated
                and len(self._network_paths) == 1
            )
        finally:
            self._streams = streams
            if hides:
                space.ack_at = acknowledge_at

    def _write_streams(self, now: float, *, is_probe: bool) -> list[tuple[bytes, Any]]:
        """As many packets as the pacer, the congestion window and the peer's credit allow."""
        path = self._network_paths[0]
        space, pacer = self._space, self._loss._pacer
        builder = self._new_builder(self._path_mtu.size)
        pacer._max_datagram_size = self._path_mtu.size
        builder.max_flight_bytes = self._loss.congestion_window - self._loss.bytes_in_flight
        if is_probe:  # may exceed the congestion window (RFC 9002 §7)
            builder.max_flight_bytes = max(builder.max_flight_bytes, self._path_mtu.size)
        if not path.is_validated:
            builder.max_total_bytes = path.bytes_received * 3 - path.bytes_sent
        while self._talkative or space.ack_at is not None:
            if space.ack_at is None or space.ack_at > now:
                self._pacing_at = pacer.next_send_time(now=now)
                if self._pacing_at is not None:
                    break
            if not builder.begin():
                break
            try:
                if space.ack_at is not None:
                    self._write_ack_frame(builder=builder, space=space, now=now)
                self._fill_packet(builder, space)
            except QuicPacketBuilderStop:
                pass  # the packet is full
            if not builder.end():
                break  # the congestion window is full
            if builder.last_in_flight:  # acknowledgements alone are not paced (RFC 9002 §7.7)
                pacer.update_after_send(now=now)
        return self._flush(builder, now)

    def _new_builder(self, size: int) -> PacketBuilder:
        return PacketBuilder(
            self._crypto,
            host_cid=self.host_cid,
            is_client=self._is_client,
            max_datagram_size=size,
            packet_number=self._packet_number,
            peer_cid=self._peer_cid.cid,
            spin_bit=self._spin_bit,
            version=self._version,
        )

    def _flush(self, builder: PacketBuilder, now: float) -> list[tuple[bytes, Any]]:
        path = self._network_paths[0]
        return self._flush_builder(builder=builder, network_path=path, peer_cid=self._peer_cid.cid, now=now)

    def _fill_packet(self, builder: PacketBuilder, space: QuicPacketSpace) -> None:
        """Let streams speak in turn until all is said or the packet has no room for the next."""
        talkative = self._talkative
        while talkative:
            stream, has_more = next(iter(talkative.items()))
            if has_more:
                self._write_more(builder, space, stream)
            sender: Outgoing = stream.sender  # type: ignore[assignment]  # nobody else's is written to
            if not sender.buffer_is_empty:  # as it is after a reset, for good
                credit = self._remote_max_data - self._remote_max_data_used
                if used := sender.write_new(builder, credit):  # nearly always
                    self._remote_max_data_used += used
                    del talkative[stream]
                    continue
                before = builder._buffer.tell()
                is_all, used = sender.write_frames(builder, credit)
                self._remote_max_data_used += used
                if not is_all:
                    if builder._buffer.tell() != before:
                        talkative[stream] = talkative.pop(stream)  # the others' turn
                    return
                if not sender.buffer_is_empty:
                    self._blocked[stream] = None
            del talkative[stream]

    def _write_more(self, builder: PacketBuilder, space: QuicPacketSpace, stream: QuicStream) -> None:
        """Write all that a stream has to say beside data."""
        if stream.max_stream_data_local != stream.max_stream_data_local_sent:
            self._write_stream_limits(builder, space, stream)
        if stream.receiver.stop_pending:
            self._write_stop_sending_frame(builder=builder, stream=stream)
            self._follow(builder, stream)
        if stream.sender.reset_pending:
            self._write_reset_stream_frame(builder=builder, stream=stream)
            self._follow(builder, stream)

    def _follow(self, builder: QuicPacketBuilder, stream: QuicStream) -> None:
        """See to it that ``stream`` gets its turn again if the packet with its latest frame is lost."""
        assert builder._packet is not None
        builder._packet.delivery_handlers.append((self._on_delivery, (stream,)))

    # -- the size of datagrams

    def search_mtu(self, most: int) -> None:
        self._path_mtu.allow(min(most, self._remote_max_datagram))

    def too_long(self) -> bool:
        return self._path_mtu.too_long()

    @property
    def datagram_size(self) -> int:
        return self._path_mtu.size

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        limit = pull_quic_transport_parameters(Buffer(data=data)).max_udp_payload_size
        if limit is not None:
            self._remote_max_datagram = limit

    def _write_mtu_probe(self, size: int, now: float) -> list[tuple[bytes, Any]]:
        """A packet of a PING and padding (RFC 9000 §14.4), of ``size`` bytes in all."""
        builder = self._new_builder(size)
        builder.begin()
        packet = builder._packet
        assert packet is not None
        builder._buffer.push_bytes(bytes((QuicFrameType.PING,)).ljust(builder.limit - builder._buffer.tell(), b"\0"))
        # Not in flight, as aioquic calls it: neither does it wait for the congestion window, nor is its loss a sign of
        # a full queue (RFC 9000 §14.4).
        packet.is_ack_eliciting = True
        packet.delivery_handlers.append((self._on_mtu_probe_delivery, ()))
        builder.end()
        self._loss._time_of_last_sent_ack_eliciting_packet = now
        return self._flush(builder, now)

    def _on_mtu_probe_delivery(self, delivery: QuicDeliveryState) -> None:
        self._path_mtu.answered(arrived=delivery is QuicDeliveryState.ACKED)

    # -- credit follows consumption

    def consumed(self, stream_id: int, count: int, unread: int) -> bool:
        data, window = self._local_max_data, self._connection_window
        self._connection_consumed += count
        # A limit moves in steps of at least half a window, so that an update is worth its frame.
        if self._connection_consumed + window - data.value >= window // 2:
            data.value = self._connection_consumed + window
            self._is_quiet = False
        stream = self._streams.get(stream_id)
        # A peer that goes on after STOP_SENDING may use up its window, but gets no new one.
        if stream is not None and not stream.receiver.is_finished and stream.receiver._stop_error_code is None:
            limit = stream.receiver._buffer_start - unread + self._stream_window
            if limit - stream.max_stream_data_local >= self._stream_window // 2:
                stream.max_stream_data_local = limit
                self._talkative[stream] = True
                return True
        return data.value != data.sent

    def cut_short(self, stream_id: int) -> None:
        receiver = self._streams[stream_id].receiver
        self.consumed(stream_id, receiver.highest_offset - receiver.starting_offset(), 0)

    def release(self, stream_id: int) -> None:
        self._stream_limit(stream_id).value += 1
        self._is_quiet = False

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        data = self._local_max_data
        if data.value != data.sent:
            self._write_limit(builder, data)
        for streams in (self._local_max_streams_bidi, self._local_max_streams_uni):
            # One frame for many streams: when it doubles what the peer may still open, at least.
            if streams.value - streams.sent > streams.sent - streams.used:
                self._write_limit(builder, streams)

    def _write_limit(self, builder: QuicPacketBuilder, limit: Limit) -> None:
        frame = builder.start_frame(
            limit.frame_type,
            capacity=CONNECTION_LIMIT_FRAME_CAPACITY,
            handler=self._on_connection_limit_delivery,
            handler_args=(limit,),
        )
        frame.push_uint_var(limit.value)
        limit.sent = limit.value

    def _write_stream_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream) -> None:
        if stream.receiver.is_finished:
            return
        frame = builder.start_frame(
            QuicFrameType.MAX_STREAM_DATA,
            capacity=MAX_STREAM_DATA_FRAME_CAPACITY,
            handler=self._on_max_stream_data_delivery,
            handler_args=(stream,),
        )
        assert stream.stream_id is not None
        frame.push_uint_var(stream.stream_id)
        frame.push_uint_var(stream.max_stream_data_local)
        stream.max_stream_data_local_sent = stream.max_stream_data_local
