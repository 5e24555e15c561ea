"""The QUIC engine: aioquic's sans-IO connection, and the ways in which ours differs from it.

What depends on the insides of aioquic 1.7 is in seven rooms, so that one canary test per name can guard it. None does
I/O or reads a clock.

* ``_engine_stock``: :class:`StockEngine` overrides nothing. It only *looks*: at unacknowledged bytes, at the peer's
  stream limit, at a CLOSE frame that arrived but has not surfaced yet.
* ``_engine_incoming``: nearly all packets are read a shorter way.
* ``_engine_outgoing``: what packets with streams are made of, and made by.
* ``_engine_streams``: :class:`Engine` changes behaviour: its cost per packet does not grow with the streams that are
  open, aioquic is not asked while it has nothing to say, and the peer gets credit for what was read.
* ``_engine_congestion``: the congestion window and the pacer, made for calls.
* ``_engine_mtu``: larger datagrams, where the path carries them.
* here: settings, TLS, which of the two engines a connection gets, and what a server says to strangers.

``TransportSettings(engine="stock")`` switches back to aioquic's own behaviour in all of it, losses counted.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import os
import ssl
import sys
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

import attrs
from aioquic._buffer import Buffer
from aioquic.quic import events
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE, QuicConfiguration
from aioquic.quic.logger import QuicFileLogger
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from agentao_trio._engine_mtu import BASE, SIZES
from agentao_trio._engine_stock import StockEngine, backlog, unsent
from agentao_trio._engine_streams import Engine

__all__ = [
    "ClientTLS",
    "Engine",
    "FrontDoor",
    "ServerTLS",
    "StockEngine",
    "TransportSettings",
    "backlog",
    "client_configuration",
    "events",
    "new_engine",
    "server_configuration",
    "unsent",
]

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
    acknowledged for so long; ``dead_after``: and the connection is lost when the PING is not answered either. The
    defaults notice a dead peer within 2.75 s of its last acknowledgement.
    ``handshake_timeout``: a listener forgets who has not completed the handshake by then. ``close_timeout``: how long
    closing waits for written data to be acknowledged.

    ``max_stream_data`` and ``max_data``: how much a peer may send beyond what was read, per stream and in all.
    ``max_inbound_streams``: how many streams of each direction the peer may have open. ``send_buffer``:
    unacknowledged bytes of one stream at which ``send_all`` waits. ``max_half_open``: connections a listener keeps
    that the program has not accepted yet; further ones are dropped.

    ``max_datagram_size``: the largest UDP payload to look for on the path (RFC 8899), up to 8848, what jumbo frames
    hold; with 1200 nothing is looked for, as on systems where nothing keeps a datagram from being sent in fragments.

    ``alpn``: PROTOCOL section 1. ``engine="stock"`` switches back to aioquic's behaviour: credit for what nobody
    has read, a window that collapses under loss, a cost per packet that grows with the streams, and datagrams of 1200.
    """

    idle_timeout: float = 60.0
    ping_interval: float = 0.75
    dead_after: float = 2.0
    handshake_timeout: float = 10.0
    close_timeout: float = 1.0
    max_stream_data: int = 256 * 1024
    max_data: int = 2 * 1024 * 1024
    max_inbound_streams: int = 128
    send_buffer: int = 256 * 1024
    max_half_open: int = 256
    max_datagram_size: int = SIZES[-1] if sys.platform == "linux" else BASE
    alpn: str = "h3"
    engine: Literal["agentao", "stock"] = "agentao"
    congestion_control: Literal["cubic", "reno"] = "cubic"
    #: Directory for a qlog of each connection, written when it ends. Complete with ``engine="stock"`` only: ours does
    #: not log the stream frames that it writes by itself.
    qlog: str | PathLike[str] | None = None


# -- configuration --------------------------------------------------------------------------------------------------


def new_engine(settings: TransportSettings, configuration: QuicConfiguration, **kwargs: Any) -> StockEngine:
    """A connection of the kind the settings name. ``kwargs`` are aioquic's, for a server's first datagram."""
    kind = StockEngine if settings.engine == "stock" else Engine
    engine = kind(configuration=configuration, max_inbound_streams=settings.max_inbound_streams, **kwargs)
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
        congestion_control_algorithm=f"{settings.engine}-{settings.congestion_control}",
        quic_logger=None if settings.qlog is None else QuicFileLogger(str(settings.qlog)),
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
