"""What calls and sessions count: frozen snapshots, taken with their owners' ``statistics()``."""

from __future__ import annotations

from enum import Enum

import attrs

from agentao_trio.events import IngestStatistics
from agentao_trio.pacing import ClockStatistics
from agentao_trio.transport import ConnectionStatistics

__all__ = ["CallStatistics", "MediaStatistics", "SessionState", "SessionStatistics"]


@attrs.frozen(kw_only=True)
class CallStatistics:
    """One call's figures as this program saw them. The gateway's own are in the event of :class:`CallEnding`."""

    packets_sent: int
    bytes_sent: int
    packets_queued: int
    #: Packets that missed their slot for want of a connection, a stream or room in it; each spent its number.
    packets_shed: int
    #: Packets dropped on request: barge-in, or a cancelled ``send_audio``.
    packets_cleared: int
    uplinks_opened: int
    #: Seconds between a slot and the moment the packets of all calls in it were written, over the most recent slots of
    #: the session's clock.
    lateness_p50: float
    lateness_p99: float
    #: 20 ms slots that passed because the whole program was late.
    slots_skipped: int
    codec_received: str
    #: Packets with audio that were handed to the readers; lost, late and duplicate ones are counted below.
    packets_received: int
    bytes_received: int
    packets_lost: int
    late_or_duplicate: int
    after_end_of_stream: int
    #: Frames dropped because a reader was too slow, or came too late.
    packets_dropped: int
    #: Interarrival jitter, RFC 3550 section 6.4.1, in milliseconds.
    jitter_ms: float
    #: Estimated mean opinion score of what was received, ITU-T G.107, 1 to 4.5; None where nothing was.
    estimated_mos: float | None


@attrs.frozen(kw_only=True)
class MediaStatistics:
    """The audio of all calls of a session, those that are over included; as in :class:`CallStatistics`."""

    packets_sent: int = 0
    bytes_sent: int = 0
    packets_shed: int = 0
    packets_cleared: int = 0
    slots_skipped: int = 0
    packets_received: int = 0
    bytes_received: int = 0
    packets_lost: int = 0
    late_or_duplicate: int = 0
    packets_dropped: int = 0

    def __add__(self, other: MediaStatistics) -> MediaStatistics:
        return MediaStatistics(
            **{
                field.name: getattr(self, field.name) + getattr(other, field.name)
                for field in attrs.fields(MediaStatistics)
            }
        )


class SessionState(Enum):
    """Where the session stands with its gateway."""

    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


@attrs.frozen(kw_only=True)
class SessionStatistics:
    """A session's figures since it was opened."""

    state: SessionState
    calls_open: int
    clock: ClockStatistics
    connection: ConnectionStatistics | None
    media: MediaStatistics
    connections: int = 0
    #: Attempts to connect again that came to nothing.
    reconnects_failed: int = 0
    streams_read: int = 0
    #: Gateway streams that ended inside a frame, were reset, or were given up for an impossible length.
    streams_truncated: int = 0
    streams_reset: int = 0
    streams_abandoned: int = 0
    frames: int = 0
    #: Frames skipped: shorter than a method id, of an unknown method, or with a body that does not decode.
    frames_short: int = 0
    frames_unknown: int = 0
    frames_undecodable: int = 0
    audio_for_unknown_calls: int = 0
    #: What was made of the events, calls remembered and forgotten.
    ingest: IngestStatistics
    #: Events that readers of :meth:`Session.events` were too slow for.
    events_unread: int
    events: int = 0
    events_duplicate: int = 0
    events_out_of_order: int = 0
    events_unknown_type: int = 0
    #: Calls nobody here asked for whose events were dropped to make room for newer ones.
    stray_calls_forgotten: int = 0
    #: Inbound calls that had to wait for the next poll because too many were waiting to be taken.
    incoming_postponed: int = 0
    commands: int = 0
    commands_rejected: int = 0
    commands_timed_out: int = 0
    #: Each is in ``calls_open``, or in one of those that follow: how it was over.
    calls_opened: int = 0
    #: Calls whose end the gateway told.
    calls_ended: int = 0
    #: Calls of which nothing was heard any more after an outage.
    calls_lost: int = 0
    #: Calls left before the gateway confirmed their end; they are hung up when they show up again.
    calls_disowned: int = 0
    #: Calls that go on without this program: left to another worker, or a conference that the agent has left.
    calls_released: int = 0
    #: Calls that the gateway would not place.
    calls_refused: int = 0
    handler_failures: int = 0
    #: Steps of tasks that kept all others waiting for longer than the watchdog allows; 0 where there is none.
    loop_blocked: int = 0
