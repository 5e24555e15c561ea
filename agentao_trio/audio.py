"""One call's audio as data: codecs, 20 ms packets, sequence numbers, jitter and a quality estimate.

Theory of operation
-------------------
Audio crosses the wire as *packets* of 20 ms, numbered per call and direction (PROTOCOL section 11). Outbound, an agent
hands over chunks of any size and :class:`Packetizer` cuts them into whole packets. Inbound, each packet passes a
:class:`SequenceTracker`, which says whether it may be played and how many packets went missing before it, and a
:class:`JitterEstimator`. Loss and delay together give an estimated MOS (:func:`estimate_mos`).

Nothing here waits, keeps time or holds audio back: every answer is given at once, so that a gap is *reported* and never
waited for. Each object holds a fixed handful of numbers, whatever the peer sends, except the packetizer, which holds
less than one packet.

Sequence numbers are unsigned 64-bit and compared modulo 2**64, so that a wrap is nothing special. A number far away
from the expected one is more likely a sender that started over than a minute of loss. As in RFC 3550 appendix A.1, it
is believed only once the packet that follows it bears the next number; the tracker then goes on from there.

Payload bytes come from the peer and are never a reason to raise. Wrong arguments from the program raise ValueError.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Mapping
from enum import Enum, StrEnum, auto
from types import MappingProxyType
from typing import NamedTuple

import attrs

with warnings.catch_warnings():
    # Up to Python 3.12 audioop is the standard library's and announces its removal when imported. The announcement is
    # already answered: from 3.13 on the package depends on audioop-lts, the same module kept alive.
    warnings.simplefilter("ignore", DeprecationWarning)
    # Under its own name for the others, who would hear the announcement if they imported it first.
    import audioop as audioop

__all__ = [
    "PACKET_MS",
    "Arrival",
    "ArrivalKind",
    "AudioFrame",
    "Codec",
    "JitterEstimator",
    "Packetizer",
    "SequenceTracker",
    "estimate_mos",
    "from_pcm16",
    "native_order",
    "to_pcm16",
]

#: Milliseconds of audio in one packet, for every codec of PROTOCOL section 11.
PACKET_MS = 20


# -- codecs ---------------------------------------------------------------------------------------------------------


class _Format(NamedTuple):
    clock_rate: int
    bytes_per_sample: int
    silent_byte: bytes


class Codec(StrEnum):
    """The codecs of PROTOCOL section 11; the value is the name on the wire."""

    PCMU = "PCMU"
    PCMA = "PCMA"
    PCM16 = "PCM16"

    @classmethod
    def named(cls, name: str) -> Codec | None:
        """The codec with this name in any letter case, or ``None``: a gateway may name codecs that we cannot read."""
        return cls.__members__.get(name.upper())

    @property
    def clock_rate(self) -> int:
        """Samples per second."""
        return _FORMATS[self].clock_rate

    @property
    def packet_bytes(self) -> int:
        """Bytes in one packet of 20 ms."""
        audio_format = _FORMATS[self]
        return audio_format.clock_rate * audio_format.bytes_per_sample * PACKET_MS // 1000

    @property
    def silence(self) -> bytes:
        """One packet of silence."""
        return _FORMATS[self].silent_byte * self.packet_bytes


# The silent bytes of G.711 are its code for the positive zero: 0xFF, and 0x55 with every second bit inverted (0xD5).
_FORMATS: Mapping[Codec, _Format] = MappingProxyType(
    {
        Codec.PCMU: _Format(8_000, 1, b"\xff"),
        Codec.PCMA: _Format(8_000, 1, b"\xd5"),
        Codec.PCM16: _Format(16_000, 2, b"\x00"),
    }
)


def to_pcm16(payload: bytes, codec: Codec) -> bytes:
    """``payload`` as signed 16-bit little-endian samples at the codec's own clock rate.

    G.711 is expanded as ITU-T G.711 says (14 and 13 significant bits, left-aligned). PCM16 passes unchanged, except
    that an odd last byte, which is half a sample, is dropped. Any bytes are accepted.
    """
    if codec is Codec.PCMU:
        return native_order(audioop.ulaw2lin(payload, 2))
    if codec is Codec.PCMA:
        return native_order(audioop.alaw2lin(payload, 2))
    return payload[: len(payload) & ~1]


def from_pcm16(pcm: bytes, codec: Codec) -> bytes:
    """Signed 16-bit little-endian samples, at the codec's own clock rate, as a payload of ``codec``.

    Raises ValueError for half a sample (an odd number of bytes).
    """
    if len(pcm) % 2:
        raise ValueError(f"16-bit samples need an even number of bytes, got {len(pcm)}")
    if codec is Codec.PCMU:
        return audioop.lin2ulaw(native_order(pcm), 2)
    if codec is Codec.PCMA:
        return audioop.lin2alaw(native_order(pcm), 2)
    return pcm


def native_order(samples: bytes, width: int = 2) -> bytes:
    """Little-endian samples of ``width`` bytes in the machine's own order, which audioop works in, or the way back."""
    return samples if sys.byteorder == "little" else audioop.byteswap(samples, width)


# -- packets --------------------------------------------------------------------------------------------------------


class AudioFrame(NamedTuple):
    """One packet of a call's audio as the agent receives it. (The wire's own form is ``messages.AudioFrame``.)

    A tuple, because 50 of them a second are made for every call, and nothing that cannot be changed is made faster.
    """

    #: The codec bytes, as many as the gateway sent: usually 20 ms, but nothing promises it.
    payload: bytes
    #: The codec's name as the gateway spelled it; :meth:`Codec.named` understands the known ones.
    codec: str
    sequence_number: int
    #: How many packets are missing directly before this one; 20 ms of silence each.
    lost_before: int
    #: The gateway's last packet for this call; its payload may be empty.
    end_of_stream: bool = False


class Packetizer:
    """Cuts chunks of any size into packets of ``packet_bytes`` (default: 20 ms of ``codec``).

    How the audio was chunked never shows in the packets. Raises ValueError for a packet of no bytes.
    """

    __slots__ = ("_codec", "_packet_bytes", "_rest")

    def __init__(self, codec: Codec, packet_bytes: int | None = None) -> None:
        self._codec = codec
        self._packet_bytes = codec.packet_bytes if packet_bytes is None else packet_bytes
        if self._packet_bytes < 1:
            raise ValueError(f"a packet needs at least one byte, not {packet_bytes}")
        self._rest = b""

    def __repr__(self) -> str:
        return f"<Packetizer of {self._codec.name}, {self._packet_bytes} bytes each, {self.pending} waiting>"

    @property
    def pending(self) -> int:
        """Bytes waiting for the rest of their packet; always less than a packet."""
        return len(self._rest)

    def feed(self, chunk: bytes | bytearray | memoryview) -> list[bytes]:
        """Add a chunk (empty ones too) and return the packets that it completed, in order."""
        whole, size = self.complete(chunk), self._packet_bytes
        return [whole[start : start + size] for start in range(0, len(whole), size)]

    def complete(self, chunk: bytes | bytearray | memoryview) -> bytes:
        """Add a chunk and return the packets that it completed in one piece, to be cut when their time comes."""
        audio = b"".join((self._rest, chunk)) if self._rest else bytes(chunk)
        whole = len(audio) - len(audio) % self._packet_bytes
        self._rest = audio[whole:]
        return audio[:whole]

    def flush(self) -> bytes | None:
        """Fill the packet that has begun with silence and return it; ``None`` when there is none."""
        if not self._rest:
            return None
        packet = self._rest + _FORMATS[self._codec].silent_byte * (self._packet_bytes - len(self._rest))
        self._rest = b""
        return packet


# -- sequence numbers -----------------------------------------------------------------------------------------------


class ArrivalKind(Enum):
    """What a packet's sequence number says about it."""

    #: Play it. Packets may be missing before it.
    IN_ORDER = auto()
    #: Its turn has passed: a duplicate, a late packet, or the first of a numbering that is not believed yet. Drop it.
    LATE = auto()
    #: It came after the packet marked end of stream. Drop it.
    AFTER_EOS = auto()


@attrs.frozen(kw_only=True)
class Arrival:
    """The verdict on one packet: its kind and, for one in order, how many packets are missing directly before it."""

    kind: ArrivalKind
    lost_before: int = 0


_NEXT = Arrival(kind=ArrivalKind.IN_ORDER)
_LATE = Arrival(kind=ArrivalKind.LATE)
_AFTER_EOS = Arrival(kind=ArrivalKind.AFTER_EOS)

_MODULUS = 1 << 64
# A number further ahead of the last one than this (a minute of audio), or further behind (two seconds), is taken for
# a sender that started over. RFC 3550 appendix A.1 calls them MAX_DROPOUT and MAX_MISORDER.
_MAX_AHEAD = 3000
_MAX_BEHIND = 100


def _distance(later: int, earlier: int) -> int:
    """How far ``later`` is ahead of ``earlier`` modulo 2**64; negative when it is behind."""
    ahead = (later - earlier) % _MODULUS
    return ahead if ahead < _MODULUS // 2 else ahead - _MODULUS


class SequenceTracker:
    """Follows the sequence numbers of one call in one direction (PROTOCOL section 11).

    The first number seen is the base. A number ahead of the expected one means loss, one behind it a late or duplicate
    packet; what was counted lost and turns up late counts as both. A number more than 3000 ahead of the last one or
    more than 100 behind it counts as late, unless the very next packet continues from it: then that packet is in order
    again, :attr:`resynchronisations` goes up, and nothing is counted as lost, because the two numberings cannot be
    compared. A packet marked end of stream ends the direction whatever its number.
    """

    __slots__ = (
        "_gaps",
        "_last",
        "_suspect",
        "after_eos",
        "ended",
        "late_or_duplicate",
        "lost",
        "received",
        "resynchronisations",
    )

    def __init__(self) -> None:
        self._last: int | None = None
        self._suspect: int | None = None
        self._gaps = 0
        #: Packets up to the end of stream, the late ones included.
        self.received: int = 0
        #: Numbers that were skipped over.
        self.lost: int = 0
        #: Packets among the received ones that were not in order.
        self.late_or_duplicate: int = 0
        #: Packets behind the end of stream.
        self.after_eos: int = 0
        #: How often the sender's numbering was found to have started over.
        self.resynchronisations: int = 0
        #: Whether the packet marked end of stream has arrived.
        self.ended: bool = False

    def __repr__(self) -> str:
        return f"<SequenceTracker, {self.received} received, {self.lost} lost{', ended' if self.ended else ''}>"

    def feed(self, sequence_number: int, end_of_stream: bool = False) -> Arrival:
        """Take note of one packet and say what it is. Never raises."""
        if self.ended:
            self.after_eos += 1
            return _AFTER_EOS
        self.ended = end_of_stream
        self.received += 1
        if self._suspect is None and sequence_number - 1 == self._last:  # nearly always
            self._last = sequence_number
            return _NEXT
        ahead = 1 if self._last is None else _distance(sequence_number, self._last)
        if self._suspect is not None and _distance(sequence_number, self._suspect) == 1:
            self._suspect = None
            self.resynchronisations += 1
            ahead = 1
        elif -_MAX_BEHIND <= ahead <= _MAX_AHEAD:
            self._suspect = None
        else:
            self._suspect = sequence_number
            ahead = 0
        if ahead < 1:
            self.late_or_duplicate += 1
            return _LATE
        self._last = sequence_number
        if ahead == 1:
            return _NEXT
        self.lost += ahead - 1
        self._gaps += 1
        return Arrival(kind=ArrivalKind.IN_ORDER, lost_before=ahead - 1)

    @property
    def loss_ratio(self) -> float:
        """Lost packets as a share of those that should have come: 0.0 to less than 1.0."""
        in_order = self.received - self.late_or_duplicate
        return self.lost / (in_order + self.lost) if self.lost else 0.0

    @property
    def burst_ratio(self) -> float:
        """How much longer the gaps are than random loss would make them: the BurstR of ITU-T G.107, at least 1.0."""
        if not self._gaps:
            return 1.0
        return max(1.0, self.lost / self._gaps * (1.0 - self.loss_ratio))


# -- jitter ---------------------------------------------------------------------------------------------------------


class JitterEstimator:
    """Interarrival jitter as in RFC 3550 section 6.4.1.

    Packets carry no timestamp, so the sequence number times 20 ms stands for it. A number more than 3000 ahead of the
    one before it, or more than 100 behind, has no common clock with it and only sets a new reference.
    """

    __slots__ = ("_arrived_at", "_sequence_number", "jitter_ms")

    def __init__(self) -> None:
        self._sequence_number: int | None = None
        self._arrived_at = 0.0
        #: The estimate so far, in milliseconds; 0.0 until two packets have arrived.
        self.jitter_ms: float = 0.0

    def __repr__(self) -> str:
        return f"<JitterEstimator at {self.jitter_ms:.3f} ms>"

    def feed(self, sequence_number: int, arrived_at: float) -> None:
        """Take note of a packet that arrived at ``arrived_at`` seconds of any steady clock.

        Raises ValueError for a time that is not a finite number, which would spoil the estimate for good.
        """
        if not math.isfinite(arrived_at):
            raise ValueError(f"a packet cannot arrive at {arrived_at} seconds")
        before = self._sequence_number
        if before is not None:
            packets = 1 if sequence_number - before == 1 else _distance(sequence_number, before)
            if -_MAX_BEHIND <= packets <= _MAX_AHEAD:
                transit_change_ms = (arrived_at - self._arrived_at) * 1000 - packets * PACKET_MS
                self.jitter_ms += (abs(transit_change_ms) - self.jitter_ms) / 16
        self._sequence_number = sequence_number
        self._arrived_at = arrived_at


# -- estimated quality ----------------------------------------------------------------------------------------------

# The rating of a connection that has nothing wrong with it: every parameter of ITU-T G.107 (06/2015) at the default of
# its table 2, with R = Ro - Is - Id = 93.2.
_R_DEFAULT = 93.2
# Delay that nobody notices, in milliseconds: mT of G.107 table 1, default class of delay sensitivity (with sT = 1).
_UNNOTICED_DELAY_MS = 100.0


class _Impairment(NamedTuple):
    ie: float
    bpl: float


# Equipment impairment (Ie) and robustness against packet loss (Bpl) from ITU-T G.113 appendix I, G.711 *without* packet
# loss concealment: what is missing here is played as silence (PROTOCOL section 11). With concealment as in G.711
# appendix I Bpl would be 25.1. G.113 has no row for linear PCM; PCM16 loses packets in the same way and ends in G.711
# on the trunk.
_IMPAIRMENTS: Mapping[Codec, _Impairment] = MappingProxyType(
    {
        Codec.PCMU: _Impairment(ie=0.0, bpl=4.3),
        Codec.PCMA: _Impairment(ie=0.0, bpl=4.3),
        Codec.PCM16: _Impairment(ie=0.0, bpl=4.3),
    }
)


def estimate_mos(*, loss_ratio: float, one_way_delay_ms: float, burst_ratio: float = 1.0, codec: Codec) -> float:
    """Mean opinion score (1.0 to 4.41) that listeners would probably give, by the E-model of ITU-T G.107.

    ``loss_ratio`` is 0.0 to 1.0, ``one_way_delay_ms`` mouth to ear, ``burst_ratio`` 1.0 for random loss and above for
    bursts. Raises ValueError for figures outside their range or not finite.

    The rating is ``R = 93.2 - Idd - Ie,eff``, turned into MOS as in annex B of G.107. So a faultless call gets 4.41.
    Limits: the model is for planning narrow-band telephony. It knows nothing of the words spoken, of echo (an
    echo-free path is assumed), noise or level, counts a wide-band call no better than a narrow-band one, and takes
    jitter into account only as far as it became delay or loss.
    """
    if not 0.0 <= loss_ratio <= 1.0:
        raise ValueError(f"loss_ratio must be 0.0 to 1.0, not {loss_ratio}")
    if not 0.0 <= one_way_delay_ms < math.inf:
        raise ValueError(f"one_way_delay_ms must be zero or more milliseconds, not {one_way_delay_ms}")
    if not 1.0 <= burst_ratio < math.inf:
        raise ValueError(f"burst_ratio must be 1.0 or more, not {burst_ratio}")
    return _mos(_R_DEFAULT - _delay_impairment(one_way_delay_ms) - _loss_impairment(loss_ratio, burst_ratio, codec))


def _delay_impairment(one_way_delay_ms: float) -> float:
    """Idd of G.107 section 7.4: too long a delay, even without echo; 0 up to 100 ms, 50 at most."""
    if one_way_delay_ms <= _UNNOTICED_DELAY_MS:
        return 0.0
    x = math.log2(one_way_delay_ms / _UNNOTICED_DELAY_MS)
    return 25.0 * (math.pow(1 + x**6, 1 / 6) - 3 * math.pow(1 + (x / 3) ** 6, 1 / 6) + 2)


def _loss_impairment(loss_ratio: float, burst_ratio: float, codec: Codec) -> float:
    """Ie,eff of G.107 section 7.5: what the codec and the lost packets cost."""
    ie, bpl = _IMPAIRMENTS[codec]
    loss_percent = loss_ratio * 100
    return ie + (95.0 - ie) * loss_percent / (loss_percent / burst_ratio + bpl)


def _mos(rating: float) -> float:
    """Annex B of G.107, without its ceiling of 4.5 for ratings of 100 and above: ours start at 93.2.

    The cubic dips below 1 for ratings between 0 and 6.5; no opinion is worse than 1.
    """
    if rating <= 0.0:
        return 1.0
    return max(1.0, 1.0 + 0.035 * rating + rating * (rating - 60.0) * (100.0 - rating) * 7e-6)
