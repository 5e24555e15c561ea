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
data, FIN, reset or stop by the program         ``send_stream_data``, ``reset_stream``, ``stop_stream``
new credit for the peer                         ``consumed``, ``cut_short``
a reset in answer to the peer's STOP_SENDING    ``_handle_stop_sending_frame``
a packet with any of it was lost                ``_on_data_delivery`` and the like
the peer raised a limit                         ``_unblock``
==============================================  =====================================================

All that is not about streams (acknowledgements, the handshake, connection ids, paths, PING) aioquic writes itself: its
own method is called first, and shown no streams.

*Credit follows consumption.* aioquic doubles a limit (MAX_DATA, MAX_STREAM_DATA, RFC 9000 §4.1) as soon as half of
it has arrived, whether or not anybody read it, and lets the peer open a stream for each one that ended (§4.6),
whether or not anybody took it. Here a limit is what the program has consumed plus a fixed window, and a stream
counts against the peer's allowance until the program is done with it. A reader that stalls therefore stops the
sender.
"""

from __future__ import annotations

import contextlib
from typing import Any

from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.buffer import size_uint_var
from aioquic.quic import events
from aioquic.quic.connection import (
    CONNECTION_LIMIT_FRAME_CAPACITY,
    MAX_STREAM_DATA_FRAME_CAPACITY,
    Limit,
    QuicNetworkPath,
    QuicReceiveContext,
)
from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder, QuicPacketBuilderStop
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from agentao_trio._engine_congestion import MediaPacer, MediaWindow
from agentao_trio._engine_stock import StockEngine

__all__ = ["Engine"]

#: A piece that would fill less than this is left for the next packet: a frame of audio is not torn in two, so that one
#: lost packet delays as few calls as it can.
LEAST_CUT = 600


class Engine(StockEngine):
    """aioquic's connection as calls need it; the header of this file says how it differs, and why."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Streams that have something to say, in the order of their turns, and those that may not say it yet.
        self._talkative: dict[QuicStream, None] = {}
        self._blocked: dict[QuicStream, None] = {}

        self._connection_window = self._configuration.max_data
        self._stream_window = self._configuration.max_stream_data
        self._connection_consumed = 0

        assert isinstance(self._loss._cc, MediaWindow)
        self._media = self._loss._cc.media
        self._loss._pacer = MediaPacer(self._media, max_datagram_size=self._max_datagram_size)

    # -- who has something to say

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        stream = self._get_or_create_stream_for_send(stream_id)
        stream.sender.write(data, end_stream)
        self._talkative[stream] = None

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        super().reset_stream(stream_id, error_code)
        if (stream := self._streams.get(stream_id)) is not None:  # or it has ended and is forgotten
            self._talkative[stream] = None

    def stop_stream(self, stream_id: int, error_code: int) -> None:
        super().stop_stream(stream_id, error_code)
        self._talkative[self._streams[stream_id]] = None

    def media_written(self, size: int) -> None:
        self._media.wrote(size)

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
        self._talkative[self._streams[event.stream_id]] = None

    def _on_data_delivery(
        self, delivery: QuicDeliveryState, stream: QuicStream, start: int, stop: int, fin: bool
    ) -> None:
        stream.sender.on_data_delivery(delivery, start, stop, fin)
        if delivery is not QuicDeliveryState.ACKED:
            self._talkative[stream] = None

    def _on_delivery(self, delivery: QuicDeliveryState, stream: QuicStream) -> None:
        # Called after the stream's own handler, which has noted what it has to say again.
        if delivery is not QuicDeliveryState.ACKED:
            self._talkative[stream] = None

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
        self._talkative.update(self._blocked)
        self._blocked.clear()

    # -- saying it

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        self._media.advance(now)
        return super().datagrams_to_send(now)

    def _write_application(self, builder: QuicPacketBuilder, network_path: QuicNetworkPath, now: float) -> None:
        space = self._spaces[tls.Epoch.ONE_RTT]
        can_talk = bool(self._talkative) and self._cryptos[tls.Epoch.ONE_RTT].send.is_valid()
        acknowledge_at = space.ack_at
        if can_talk:
            space.ack_at = None  # an acknowledgement that is due rides along with the data
        streams, self._streams = self._streams, {}
        self._streams_queue.clear()  # aioquic's own order of turns
        try:
            with contextlib.suppress(QuicPacketBuilderStop):  # the rest may still fit into the next packet
                super()._write_application(builder, network_path, now)
        finally:
            self._streams = streams
            if can_talk:
                space.ack_at = acknowledge_at
        if can_talk:
            self._write_streams(builder, space, now)

    def _write_streams(self, builder: QuicPacketBuilder, space: QuicPacketSpace, now: float) -> None:
        """As many packets as the pacer, the congestion window and the peer's credit allow."""
        crypto = self._cryptos[tls.Epoch.ONE_RTT]
        pacer = self._loss._pacer
        while self._talkative:
            is_ack_due = space.ack_at is not None and space.ack_at <= now
            if not is_ack_due:
                self._pacing_at = pacer.next_send_time(now=now)
                if self._pacing_at is not None:
                    return
            builder.start_packet(QuicPacketType.ONE_RTT, crypto)
            if is_ack_due:
                self._write_ack_frame(builder=builder, space=space, now=now)
            with contextlib.suppress(QuicPacketBuilderStop):  # the packet is full
                self._fill_packet(builder, space)
            if builder.packet_is_empty:
                return  # the congestion window is full
            pacer.update_after_send(now=now)

    def _fill_packet(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        """Let streams speak in turn until all is said or the packet has no room for the next."""
        talkative = self._talkative
        while talkative:
            stream = next(iter(talkative))
            sender = stream.sender
            self._write_stream_limits(builder, space, stream)
            if stream.receiver.stop_pending:
                self._write_stop_sending_frame(builder=builder, stream=stream)
                self._follow(builder, stream)
            if sender.reset_pending:
                self._write_reset_stream_frame(builder=builder, stream=stream)
                self._follow(builder, stream)
            elif not sender.buffer_is_empty and not self._write_data(builder, stream):
                return
            del talkative[stream]

    def _write_data(self, builder: QuicPacketBuilder, stream: QuicStream) -> bool:
        """Write what a stream has to send. Whether that was all of it, or all that the peer allows; if not, the packet
        is full."""
        sender = stream.sender
        pending = sender._pending  # ranges of offsets
        has_spoken = False
        while True:
            if len(pending):
                first = pending[0]
                start, size = first.start, first.stop - first.start
            elif sender._pending_eof:
                start, size = sender._buffer_stop, 0
            else:
                return True
            highest = sender.highest_offset
            allowed = min(highest + self._remote_max_data - self._remote_max_data_used, stream.max_stream_data_remote)
            if stream.is_blocked or (size and start >= allowed):
                self._blocked[stream] = None
                return True
            assert stream.stream_id is not None
            header = 3 + size_uint_var(stream.stream_id) + (size_uint_var(start) if start else 0)
            room = builder.remaining_flight_space - header
            if room < size and room < LEAST_CUT:
                if has_spoken:
                    self._talkative[stream] = self._talkative.pop(stream)  # the others' turn
                return False
            frame = sender.get_frame(room, allowed)
            assert frame is not None  # there is something to say, and room for it
            data = frame.data
            end = start + len(data)
            # RFC 9000 §19.8: with a length, with an offset unless it is 0, and with FIN where it ends the stream.
            buffer = builder.start_frame(
                QuicFrameType.STREAM_BASE | 2 | (4 if start else 0) | frame.fin,
                capacity=header,
                handler=self._on_data_delivery,
                handler_args=(stream, start, end, frame.fin),
            )
            buffer.push_uint_var(stream.stream_id)
            if start:
                buffer.push_uint_var(start)
            buffer.push_uint16(len(data) | 0x4000)
            buffer.push_bytes(data)
            self._remote_max_data_used += sender.highest_offset - highest
            has_spoken = True

    def _follow(self, builder: QuicPacketBuilder, stream: QuicStream) -> None:
        """See to it that ``stream`` gets its turn again if the packet with its latest frame is lost."""
        assert builder._packet is not None
        builder._packet.delivery_handlers.append((self._on_delivery, (stream,)))

    # -- credit follows consumption

    def consumed(self, stream_id: int, count: int, unread: int) -> bool:
        data = self._local_max_data
        self._connection_consumed += count
        data.value = _advance(data.value, self._connection_consumed, self._connection_window)
        stream = self._streams.get(stream_id)
        # A peer that goes on after STOP_SENDING may use up its window, but gets no new one.
        if stream is not None and not stream.receiver.is_finished and stream.receiver._stop_error_code is None:
            read = stream.receiver.starting_offset() - unread
            stream.max_stream_data_local = _advance(stream.max_stream_data_local, read, self._stream_window)
            if stream.max_stream_data_local != stream.max_stream_data_local_sent:
                self._talkative[stream] = None
                return True
        return data.value != data.sent

    def cut_short(self, stream_id: int) -> None:
        receiver = self._streams[stream_id].receiver
        self.consumed(stream_id, receiver.highest_offset - receiver.starting_offset(), 0)

    def release(self, stream_id: int) -> None:
        self._stream_limit(stream_id).value += 1

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
        if stream.max_stream_data_local == stream.max_stream_data_local_sent or stream.receiver.is_finished:
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


def _advance(limit: int, consumed: int, window: int) -> int:
    """The new limit; it moves in steps of at least half a window, so that an update is worth its frame."""
    return consumed + window if consumed + window - limit >= window // 2 else limit
