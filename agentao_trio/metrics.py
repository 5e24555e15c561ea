"""Prometheus metrics of sessions. Needs the extra ``metrics``.

::

    async with open_session("quic://gateway.example:9090", client_id="desk") as session:
        prometheus_client.REGISTRY.register(SessionCollector(session))
        prometheus_client.start_http_server(9464)

Nothing is counted here: a collector asks for ``session.statistics()`` whenever it is scraped, so that there is nothing
to keep up to date and no cost in between. Scrapes usually come in a thread of their own; they then wait for the
session's thread to take the snapshot, as a session is not to be looked at from another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter

import attrs
import trio

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector
except ModuleNotFoundError as _missing:
    raise ModuleNotFoundError(
        "agentao_trio.metrics needs the extra 'metrics': pip install 'agentao-trio[metrics]'", name=_missing.name
    ) from _missing

from agentao_trio.session import Session
from agentao_trio.statistics import SessionState, SessionStatistics

__all__ = ["SessionCollector"]

Family = CounterMetricFamily | GaugeMetricFamily


@attrs.frozen
class _Metric:
    """``values`` are dotted names of statistics by what the metric's further label, ``label``, says of them."""

    name: str
    help: str
    values: dict[str, str]
    label: str = ""

    def family(self) -> Family:
        labels = ["client_id", *filter(None, [self.label])]
        kind = CounterMetricFamily if self.name.endswith("_total") else GaugeMetricFamily
        return kind(self.name, self.help, labels=labels)


def _one(name: str, help: str, value: str) -> _Metric:
    return _Metric(name, help, {"": value})


METRICS = (
    _one("agentao_calls_open", "Calls in progress.", "calls_open"),
    _one("agentao_calls_opened_total", "Calls placed and taken.", "calls_opened"),
    _Metric(
        "agentao_calls_ended_total",
        "Calls that are over: hung up as the gateway says, lost with the connection, left before it said so, released "
        "to go on without this program, or refused by the gateway.",
        {
            "hung_up": "calls_ended",
            "lost": "calls_lost",
            "left": "calls_disowned",
            "released": "calls_released",
            "refused": "calls_refused",
        },
        "how",
    ),
    _one("agentao_audio_sent_packets_total", "Packets of audio sent.", "media.packets_sent"),
    _one("agentao_audio_sent_bytes_total", "Bytes of audio sent.", "media.bytes_sent"),
    _Metric(
        "agentao_audio_unsent_packets_total",
        "Packets of audio that were not sent: shed for want of room on the path, or cleared on request.",
        {"shed": "media.packets_shed", "cleared": "media.packets_cleared"},
        "why",
    ),
    _one("agentao_audio_received_packets_total", "Packets of audio received.", "media.packets_received"),
    _one("agentao_audio_received_bytes_total", "Bytes of audio received.", "media.bytes_received"),
    _one("agentao_audio_lost_packets_total", "Packets of audio that never came.", "media.packets_lost"),
    _one("agentao_audio_late_packets_total", "Packets of audio that came late or twice.", "media.late_or_duplicate"),
    _one("agentao_audio_dropped_packets_total", "Packets that readers were too slow for.", "media.packets_dropped"),
    _Metric(
        "agentao_pacing_lateness_seconds",
        "Time between a slot and the moment all packets of it were written, over the most recent slots.",
        {"0.5": "clock.lateness_p50", "0.99": "clock.lateness_p99", "1": "clock.lateness_max"},
        "quantile",
    ),
    _one("agentao_pacing_skipped_slots_total", "20 ms slots that passed unused.", "clock.slots_skipped"),
    _one("agentao_loop_blocked_total", "Steps of tasks that the watchdog found too long.", "loop_blocked"),
    _one("agentao_connections_total", "Connections made to the gateway, the first one included.", "connections"),
    _one("agentao_reconnects_failed_total", "Attempts to connect again that came to nothing.", "reconnects_failed"),
    _one("agentao_commands_total", "Commands sent to the gateway.", "commands"),
    _Metric(
        "agentao_commands_failed_total",
        "Commands that the gateway refused, or did not answer in time.",
        {"rejected": "commands_rejected", "timed_out": "commands_timed_out"},
        "outcome",
    ),
    _one("agentao_events_total", "Events received.", "events"),
    _Metric(
        "agentao_events_odd_total",
        "Events that came again, out of order, of an unknown type, or that a reader was too slow for.",
        {
            "duplicate": "events_duplicate",
            "out_of_order": "events_out_of_order",
            "unknown": "events_unknown_type",
            "unread": "events_unread",
        },
        "how",
    ),
    _Metric(
        "agentao_frames_skipped_total",
        "Frames that could not be used: too short, of an unknown method, or with a body that does not decode.",
        {"short": "frames_short", "unknown": "frames_unknown", "undecodable": "frames_undecodable"},
        "why",
    ),
    _Metric(
        "agentao_streams_broken_total",
        "Streams of the gateway that ended early: inside a frame, by a reset, or given up by us.",
        {"truncated": "streams_truncated", "reset": "streams_reset", "abandoned": "streams_abandoned"},
        "how",
    ),
    _one("agentao_handler_failures_total", "Handlers of calls that raised.", "handler_failures"),
)

#: What there is only while connected; a counter of one connection would begin anew with the next.
CONNECTION = (
    _one("agentao_connection_rtt_seconds", "Round-trip time of the connection.", "rtt"),
    _one("agentao_connection_lost_packets", "QUIC packets lost on this connection.", "packets_lost"),
    _one("agentao_connection_sent_bytes", "UDP payload sent on this connection.", "bytes_sent"),
    _one("agentao_connection_received_bytes", "UDP payload received on this connection.", "bytes_received"),
    _one("agentao_connection_in_flight_bytes", "Bytes sent and not acknowledged.", "bytes_in_flight"),
    _one("agentao_connection_open_streams", "QUIC streams open.", "streams_open"),
)


class SessionCollector(Collector):
    """What a Prometheus registry takes: the figures of these sessions, told apart by their ``client_id``.

    Make it in the sessions' own thread. Raises :class:`RuntimeError` outside of trio. A registry takes one collector:
    give it all of a program's sessions. Once trio has ended there are no figures any more.
    """

    def __init__(self, *sessions: Session) -> None:
        self._sessions = sessions
        self._trio = trio.lowlevel.current_trio_token()

    def __repr__(self) -> str:
        return f"<SessionCollector of {', '.join(session.client_id for session in self._sessions)}>"

    def collect(self) -> Iterator[Family]:
        """Take a snapshot, from whichever thread. Waits for the sessions' thread while that is busy."""
        try:
            snapshots = self._in_trio(self._snapshots)
        except trio.RunFinishedError:
            return
        connected = _one("agentao_session_connected", "1 while the session has a connection, 0 while not.", "").family()
        for client_id, snapshot in snapshots.items():
            connected.add_metric([client_id], float(snapshot.state is SessionState.CONNECTED))
        yield connected
        yield from _families(METRICS, snapshots)
        yield from _families(
            CONNECTION, {client_id: each.connection for client_id, each in snapshots.items() if each.connection}
        )

    def _in_trio(self, snapshots: Callable[[], dict[str, SessionStatistics]]) -> dict[str, SessionStatistics]:
        if trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is self._trio:
            return snapshots()
        return trio.from_thread.run_sync(snapshots, trio_token=self._trio)

    def _snapshots(self) -> dict[str, SessionStatistics]:
        return {session.client_id: session.statistics() for session in self._sessions}


def _families(metrics: tuple[_Metric, ...], snapshots: Mapping[str, object]) -> Iterator[Family]:
    for metric in metrics:
        family = metric.family()
        for client_id, snapshot in snapshots.items():
            for label, value in metric.values.items():
                family.add_metric([client_id, *filter(None, [label])], float(attrgetter(value)(snapshot)))
        yield family
