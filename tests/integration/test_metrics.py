"""What Prometheus sees of a session."""

from __future__ import annotations

import subprocess
import sys

import pytest
import trio
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock

from agentao_trio.errors import CommandRejected
from agentao_trio.metrics import METRICS, SessionCollector
from tests.support.simulated import simulated

ECHO, REFUSED = "+15550100001", "+15550100403"


def registry(collector: SessionCollector) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(collector)
    return registry


async def test_the_figures_of_a_session_and_its_calls(autojump_clock: MockClock) -> None:
    async with simulated(client_id="desk") as (session, _):
        figures = registry(SessionCollector(session))

        def value(name: str, **labels: str) -> float | None:
            return figures.get_sample_value(name, {"client_id": "desk", **labels})

        assert value("agentao_session_connected") == 1
        assert value("agentao_audio_sent_packets_total") == 0
        async with await session.originate(ECHO, trunk_id="main") as call:
            await call.wait_answered()
            await call.send_audio(bytes(160 * 25))
            await trio.sleep(1)
            assert value("agentao_calls_open") == 1
            assert value("agentao_audio_sent_packets_total") == 25
        with pytest.raises(CommandRejected):
            await session.originate(REFUSED, trunk_id="main")

        assert value("agentao_calls_open") == 0
        assert value("agentao_calls_ended_total", how="hung_up") == 1
        # A call that is over still counts.
        assert value("agentao_audio_sent_packets_total") == session.statistics().media.packets_sent >= 25
        assert value("agentao_audio_sent_bytes_total") == 25 * 160
        assert value("agentao_audio_received_packets_total") == call.statistics().packets_received >= 25
        assert value("agentao_audio_lost_packets_total") == 0
        assert value("agentao_audio_unsent_packets_total", why="shed") == 0
        assert value("agentao_commands_failed_total", outcome="rejected") == 1
        assert value("agentao_commands_failed_total", outcome="timed_out") == 0
        assert value("agentao_connections_total") == 1
        assert (value("agentao_connection_rtt_seconds") or 0) > 0
        assert value("agentao_pacing_lateness_seconds", quantile="0.99") is not None


async def test_several_sessions_are_told_apart(autojump_clock: MockClock) -> None:
    async with simulated(client_id="one") as (first, _), simulated(client_id="two") as (second, _):
        figures = registry(SessionCollector(first, second))
        async with await second.originate(ECHO, trunk_id="main"):
            assert figures.get_sample_value("agentao_calls_open", {"client_id": "one"}) == 0
            assert figures.get_sample_value("agentao_calls_open", {"client_id": "two"}) == 1


async def test_a_scrape_may_come_from_another_thread(autojump_clock: MockClock) -> None:
    async with simulated(client_id="desk") as (session, gateway):
        figures = registry(SessionCollector(session))
        text = (await trio.to_thread.run_sync(generate_latest, figures)).decode()
        assert 'agentao_calls_open{client_id="desk"} 0.0' in text
        families = {family.name: family for family in text_string_to_metric_families(text)}
        assert all(family.documentation for family in families.values())
        assert {metric.name.removesuffix("_total") for metric in METRICS} <= set(families)
        await gateway.disconnect()
        await trio.sleep(0.001)
        text = (await trio.to_thread.run_sync(generate_latest, figures)).decode()
        assert 'agentao_connections_total{client_id="desk"}' in text


def test_nothing_is_left_when_trio_has_ended() -> None:
    async def main() -> CollectorRegistry:
        async with simulated() as (session, _):
            return registry(SessionCollector(session))

    figures = trio.run(main, clock=MockClock(autojump_threshold=0))
    assert generate_latest(figures) == b""


def test_without_the_extra_it_is_named() -> None:
    program = "import sys; sys.modules['prometheus_client'] = None\nimport agentao_trio\nimport agentao_trio.metrics"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'agentao-trio[metrics]'" in done.stderr.splitlines()[-1]
