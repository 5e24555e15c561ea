"""Where a Realtime session is, and what it has done so far."""

from __future__ import annotations

from enum import StrEnum

import attrs

from agentao_trio.realtime.router import RouterStatistics

__all__ = ["RealtimeState", "RealtimeStatistics"]


class RealtimeState(StrEnum):
    """Where a session is."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


@attrs.frozen(kw_only=True)
class RealtimeStatistics:
    """What a session has done so far."""

    state: RealtimeState
    #: Connections that were greeted, those replaced before their time was over, and those lost.
    connections: int
    renewals: int
    losses: int
    #: Attempts to connect that failed.
    failed_attempts: int
    events_received: int
    #: Events of types that are not known, and messages that are no events.
    unknown: int
    malformed: int
    #: Events that cannot come where they came; see :mod:`agentao_trio.realtime.sequence`.
    violations: int
    #: Events that came once more, with the same id and the same bytes; nobody is told of them twice.
    duplicates: int
    events_sent: int
    #: Milliseconds of caller audio sent, dropped for want of room or of a connection, and waiting.
    audio_sent_ms: int
    audio_dropped_ms: int
    audio_waiting_ms: int
    #: Errors the server told of, and those of them that were races nobody has to mind.
    errors: int
    harmless_errors: int
    #: Responses asked for again after a refusal or a failure.
    retries: int
    #: Items that were put into a new connection, and items that the server did not take there.
    items_replayed: int
    items_left_behind: int
    router: RouterStatistics
