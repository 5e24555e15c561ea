"""The QUIC engine: aioquic's sans-IO connection, and the few ways in which ours differs from it.

This file holds everything that depends on the insides of aioquic 1.7, so that one canary test per name can guard it. It
does no I/O and reads no clock. Two classes share one interface:

* :class:`StockEngine` overrides nothing. It only *looks*: at unacknowledged bytes, at the peer's stream limit, at a
  CLOSE frame that arrived but has not surfaced yet.
* :class:`Engine` also changes behaviour, in one place at a time:

  *Credit follows consumption.* aioquic doubles a limit (MAX_DATA, MAX_STREAM_DATA, RFC 9000 §4.1) as soon as half of
  it has arrived, whether or not anybody read it, and lets the peer open a stream for each one that ended (§4.6),
  whether or not anybody took it. Here a limit is what the program has consumed plus a fixed window, and a stream
  counts against the peer's allowance until the program is done with it. A reader that stalls therefore stops the
  sender.

The send path (which streams have something to say) and the congestion controllers are the engine's too; they have their
place below and are aioquic's own for now, with losses counted.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import os
import ssl
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

import attrs
from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic import events
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE, QuicConfiguration
from aioquic.quic.congestion.base import register_congestion_control
from aioquic.quic.congestion.cubic import CubicCongestionControl
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.connection import (
    CONNECTION_LIMIT_FRAME_CAPACITY,
    END_STATES,
    MAX_STREAM_DATA_FRAME_CAPACITY,
    Limit,
    QuicConnection,
    QuicConnectionState,
    stream_is_client_initiated,
    stream_is_unidirectional,
)
from aioquic.quic.packet import (
    QuicFrameType,
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.packet_builder import QuicPacketBuilder, QuicSentPacket
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.retry import QuicRetryTokenHandler
from aioquic.quic.stream import QuicStream
from cryptography import x509
from cryptography.hazmat.primitives import serialization

__all__ = [
    "ClientTLS",
    "Engine",
    "FrontDoor",
    "ServerTLS",
    "StockEngine",
    "TransportSettings",
    "client_configuration",
    "events",
    "new_engine",
    "server_configuration",
]

#: Bytes of a close reason that are sent; a CLOSE frame has to fit one datagram of 1200 bytes.
MAX_CLOSE_REASON = 512

# aioquic logs under "quic"; without a handler its warnings would end up on the user's terminal.
_log = logging.getLogger("agentao_trio.quic")
_log.addHandler(logging.NullHandler())


@attrs.frozen(kw_only=True)
class ClientTLS:
    """How a client satisfies itself that it talks to the right gateway.

    ``ca`` is a PEM file or its bytes, ``None`` the system's store. ``server_name`` is the name the certificate must
    carry (default: the endpoint's host). ``verify=False`` accepts any certificate, which leaves the connection open
    to whoever sits on the path. ``keylog`` names a file to which TLS secrets are appended (NSS key log format), for
    debugging alone.
    """

    ca: str | PathLike[str] | bytes | None = None
    server_name: str | None = None
    verify: bool = True
    keylog: str | PathLike[str] | None = None


@attrs.frozen(kw_only=True)
class ServerTLS:
    """What a listener presents: its certificate chain, leaf first, and the leaf's unencrypted private key, both PEM."""

    certificate_chain_pem: bytes
    private_key_pem: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class TransportSettings:
    """Timers in seconds, sizes in bytes.

    ``idle_timeout``: QUIC's own (RFC 9000 §10.1). ``ping_interval``: a PING goes out when nothing has been
    acknowledged for so long; ``dead_after``: and the connection is lost when the PING is not answered either.
    ``handshake_timeout``: a listener forgets who has not completed the handshake by then. ``close_timeout``: how long
    closing waits for written data to be acknowledged.

    ``max_stream_data`` and ``max_data``: how much a peer may send beyond what was read, per stream and in all.
    ``max_inbound_streams``: how many streams of each direction the peer may have open. ``send_buffer``:
    unacknowledged bytes of one stream at which ``send_all`` waits. ``max_half_open``: connections a listener keeps
    that the program has not accepted yet; further ones are dropped.

    ``alpn``: PROTOCOL section 1. ``engine="stock"`` switches back to aioquic's behaviour: 128 streams, credit unread.
    """

    idle_timeout: float = 60.0
    ping_interval: float = 1.0
    dead_after: float = 2.0
    handshake_timeout: float = 10.0
    close_timeout: float = 1.0
    max_stream_data: int = 256 * 1024
    max_data: int = 2 * 1024 * 1024
    max_inbound_streams: int = 128
    send_buffer: int = 256 * 1024
    max_half_open: int = 256
    alpn: str = "h3"
    engine: Literal["agentao", "stock"] = "agentao"
    congestion_control: Literal["cubic", "reno"] = "cubic"


# -- looking in -----------------------------------------------------------------------------------------------------


class StockEngine(QuicConnection):
    """aioquic's connection with its behaviour untouched, and the looks into it that a driver needs."""

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

    def backlog(self, stream_id: int) -> int:
        """Bytes written to a stream that the peer has not acknowledged, sent or not. 0 once it was reset or is gone."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.sender._reset_error_code is not None:
            return 0
        return len(stream.sender._buffer)

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

    def is_discarded(self, stream_id: int) -> bool:
        """Whether both directions of a stream have ended and aioquic has forgotten it."""
        return self._stream_is_discarded(stream_id)

    # -- credit: who reads is no concern of aioquic's

    def consumed(self, stream_id: int, count: int, unread: int) -> None:
        """The program took ``count`` bytes of a stream; ``unread`` bytes that were delivered are still waiting for
        it."""

    def cut_short(self, stream_id: int) -> None:
        """The peer reset a stream; what was received of it beyond a gap will never be delivered."""

    def release(self, stream_id: int) -> None:
        """The program is done with a stream that the peer opened, and so is the engine."""

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
        return self._close_event if self._state in END_STATES else None

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
        assert isinstance(controller, (_CountingReno, _CountingCubic))
        return controller.packets_lost

    @property
    def stream_count(self) -> int:
        """Streams, of either side, that have not ended in both directions."""
        return len(self._streams)


# -- doing otherwise ------------------------------------------------------------------------------------------------


class Engine(StockEngine):
    """aioquic's connection with credit that follows consumption; the module's header says why."""

    def __init__(self, *, max_inbound_streams: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._connection_window = self._configuration.max_data
        self._stream_window = self._configuration.max_stream_data
        self._connection_consumed = 0
        # What aioquic adds to these limits as streams end is taken back; see _hold_stream_limits.
        self._streams_granted = {False: max_inbound_streams, True: max_inbound_streams}  # by "is unidirectional"
        self._hold_stream_limits()
        for limit in (self._local_max_streams_bidi, self._local_max_streams_uni):
            limit.sent = limit.value

    def consumed(self, stream_id: int, count: int, unread: int) -> None:
        self._connection_consumed += count
        self._local_max_data.value = _advance(
            self._local_max_data.value, self._connection_consumed, self._connection_window
        )
        stream = self._streams.get(stream_id)
        # A peer that goes on after STOP_SENDING may use up its window, but gets no new one.
        if stream is not None and not stream.receiver.is_finished and stream.receiver._stop_error_code is None:
            read = stream.receiver.starting_offset() - unread
            stream.max_stream_data_local = _advance(stream.max_stream_data_local, read, self._stream_window)

    def cut_short(self, stream_id: int) -> None:
        receiver = self._streams[stream_id].receiver
        self.consumed(stream_id, receiver.highest_offset - receiver.starting_offset(), 0)

    def release(self, stream_id: int) -> None:
        self._streams_granted[stream_is_unidirectional(stream_id)] += 1
        self._hold_stream_limits()

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        datagrams = super().datagrams_to_send(now)
        self._hold_stream_limits()
        return datagrams

    def _hold_stream_limits(self) -> None:
        self._local_max_streams_bidi.value = self._streams_granted[False]
        self._local_max_streams_uni.value = self._streams_granted[True]

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        self._hold_stream_limits()
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


# -- congestion control ---------------------------------------------------------------------------------------------


#: Bytes that may always be in flight: the window RFC 9002 §7.2 begins with. What we carry is paced by a clock, and shed
#: where the path cannot carry it; a loss-based window that collapses to two datagrams would only make it late.
_LEAST_WINDOW = 10 * SMALLEST_MAX_DATAGRAM_SIZE


class _CountingReno(RenoCongestionControl):
    packets_lost = 0

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        packets = list(packets)
        self.packets_lost += len(packets)
        super().on_packets_lost(now=now, packets=packets)
        self.congestion_window = max(self.congestion_window, _LEAST_WINDOW)


class _CountingCubic(CubicCongestionControl):
    packets_lost = 0

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        packets = list(packets)
        self.packets_lost += len(packets)
        super().on_packets_lost(now=now, packets=packets)
        self.congestion_window = max(self.congestion_window, _LEAST_WINDOW)


register_congestion_control("agentao-reno", _CountingReno)
register_congestion_control("agentao-cubic", _CountingCubic)


# -- configuration --------------------------------------------------------------------------------------------------


def new_engine(settings: TransportSettings, configuration: QuicConfiguration, **kwargs: Any) -> StockEngine:
    """A connection of the kind the settings name. ``kwargs`` are aioquic's, for a server's first datagram."""
    engine: StockEngine
    if settings.engine == "stock":
        engine = StockEngine(configuration=configuration, **kwargs)
    else:
        engine = Engine(configuration=configuration, max_inbound_streams=settings.max_inbound_streams, **kwargs)
    engine._logger.logger = _log
    return engine


def client_configuration(
    settings: TransportSettings, tls_: ClientTLS, host: str, keylog: TextIO | None
) -> QuicConfiguration:
    """aioquic's configuration of a client. Raises OSError or ValueError when the CA cannot be used."""
    configuration = _configuration(settings, is_client=True)
    configuration.server_name = tls_.server_name or host
    configuration.secrets_log_file = keylog
    if not tls_.verify:
        configuration.verify_mode = ssl.CERT_NONE
    elif tls_.ca is not None:
        pem = tls_.ca if isinstance(tls_.ca, bytes) else Path(tls_.ca).read_bytes()
        # aioquic's own reader stumbles over CRLF and over text between certificates.
        configuration.cadata = b"".join(
            certificate.public_bytes(serialization.Encoding.PEM) for certificate in x509.load_pem_x509_certificates(pem)
        )
    else:
        # aioquic falls back to certifi's list where the system has no store that OpenSSL knows of.
        paths = ssl.get_default_verify_paths()
        configuration.cafile, configuration.capath = paths.cafile, paths.capath
    return configuration


def server_configuration(settings: TransportSettings, tls_: ServerTLS) -> QuicConfiguration:
    """aioquic's configuration of a listener. Raises ValueError for a chain and key that cannot be used together."""
    configuration = _configuration(settings, is_client=False)
    try:
        chain = x509.load_pem_x509_certificates(tls_.certificate_chain_pem)
    except ValueError as error:
        raise ValueError(f"the certificate chain is not usable: {error}") from error
    configuration.certificate, *configuration.certificate_chain = chain
    try:
        configuration.private_key = serialization.load_pem_private_key(tls_.private_key_pem, password=None)
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise ValueError(f"the private key is not usable: {error}") from error
    if configuration.private_key.public_key() != configuration.certificate.public_key():
        raise ValueError("the private key does not belong to the first certificate of the chain")
    return configuration


def _configuration(settings: TransportSettings, *, is_client: bool) -> QuicConfiguration:
    return QuicConfiguration(
        is_client=is_client,
        alpn_protocols=[settings.alpn],
        idle_timeout=settings.idle_timeout,
        max_data=settings.max_data,
        max_stream_data=settings.max_stream_data,
        congestion_control_algorithm=f"agentao-{settings.congestion_control}",
    )


# -- strangers ------------------------------------------------------------------------------------------------------


class FrontDoor:
    """What a server says to a datagram that belongs to no connection. Remembers nothing of whom it sends away."""

    def __init__(self, settings: TransportSettings, configuration: QuicConfiguration) -> None:
        self._settings = settings
        self._configuration = configuration
        self._tokens = QuicRetryTokenHandler()

    def read(self, datagram: bytes) -> Packet | None:
        """The header of a datagram's first packet, as far as it is readable by anybody; ``None`` if it is none."""
        length = self._configuration.connection_id_length
        if datagram and not datagram[0] & 0x80:  # a short header: the connection id follows at once (RFC 9000 §17.3)
            return Packet(datagram[1 : 1 + length], None, len(datagram))
        try:
            header = pull_quic_header(Buffer(data=datagram), host_cid_length=length)
        except ValueError:
            return None
        return Packet(header.destination_cid, header, len(datagram))

    def receive(self, packet: Packet, source: Any, now: float, *, suspicious: bool) -> StockEngine | bytes | None:
        """An engine for a newcomer, an answer to send him, or neither.

        An answer is never longer than what came, as the sender's address may be forged. ``suspicious``: let him prove
        it first (Retry, RFC 9000 §8.1.2), which costs us no memory.
        """
        header = packet.header
        if header is None or packet.size < SMALLEST_MAX_DATAGRAM_SIZE:
            return None
        if header.packet_type is QuicPacketType.VERSION_NEGOTIATION:
            return None
        if header.version not in self._configuration.supported_versions:
            return encode_quic_version_negotiation(  # RFC 9000 §6.1
                source_cid=header.destination_cid,
                destination_cid=header.source_cid,
                supported_versions=self._configuration.supported_versions,
            )
        if header.packet_type is not QuicPacketType.INITIAL:
            return None
        if header.token:
            try:
                original_cid = self._tokens.validate_token(
                    address=_as_ip(source), destination_cid=header.destination_cid, token=header.token, now=now
                )
            except ValueError:
                return None
            return self._new_engine(original_cid, header.destination_cid)
        if suspicious:
            return self._ask_back(header, header.version, source, now)
        return self._new_engine(header.destination_cid, None)

    def _new_engine(self, original_cid: bytes, retry_cid: bytes | None) -> StockEngine:
        return new_engine(
            self._settings,
            self._configuration,
            original_destination_connection_id=original_cid,
            retry_source_connection_id=retry_cid,
        )

    def _ask_back(self, header: QuicHeader, version: int, source: Any, now: float) -> bytes:
        cid = os.urandom(self._configuration.connection_id_length)
        return encode_quic_retry(
            version=version,
            source_cid=cid,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=self._tokens.create_token(
                address=_as_ip(source),
                original_destination_connection_id=header.destination_cid,
                retry_source_connection_id=cid,
                now=now,
            ),
        )


class Packet(NamedTuple):
    """The first packet of a datagram: for whom it is, its long header if it has one, and the datagram's length."""

    destination_cid: bytes
    header: QuicHeader | None
    size: int


def _as_ip(address: Any) -> tuple[ipaddress.IPv6Address, int]:
    """An address for a retry token, which has room for an IP number and a port; any host is given a number."""
    number = hashlib.sha256(str(address[0]).encode()).digest()[:16]
    return ipaddress.IPv6Address(number), address[1]
