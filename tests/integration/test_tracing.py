"""What OpenTelemetry sees of a session: a span for each call and each command, and the gateway told of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider, StatusCode
from trio.testing import MockClock

from agentao_trio import messages
from agentao_trio.errors import CommandRejected
from agentao_trio.gateway.model import GatewayModel
from agentao_trio.messages import MethodId
from agentao_trio.tracing import trace
from tests.support.simulated import simulated

ECHO, REFUSED = "+15550100001", "+15550100403"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Traces:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def __getitem__(self, name: str) -> ReadableSpan:
        [span] = [span for span in self.exporter.get_finished_spans() if span.name == name]
        return span


@pytest.fixture
def traces() -> Iterator[Traces]:
    traces = Traces()
    yield traces
    traces.provider.shutdown()


@pytest.fixture
def originated(monkeypatch: pytest.MonkeyPatch) -> list[messages.OriginateRequest]:
    """What the gateway is asked to originate."""
    seen: list[messages.OriginateRequest] = []
    handle = GatewayModel.handle

    def handle_and_keep(self: GatewayModel, peer: object, method: MethodId, message: object, now: float) -> object:
        if isinstance(message, messages.OriginateRequest):
            seen.append(message)
        return handle(self, peer, method, message, now)  # type: ignore[arg-type]

    monkeypatch.setattr(GatewayModel, "handle", handle_and_keep)
    return seen


async def test_a_call_and_its_commands(
    traces: Traces, originated: list[messages.OriginateRequest], autojump_clock: MockClock
) -> None:
    async with simulated() as (session, _):
        trace(session, traces.provider)
        tracer = traces.provider.get_tracer("program")
        with tracer.start_as_current_span("program"):
            async with await session.originate(ECHO, trunk_id="main") as call:
                await call.wait_answered()
        await session.get_active_buckets()
    span, program = traces["call"], traces["program"]
    assert span.parent is not None
    assert program.context is not None
    assert span.context is not None
    assert span.parent.span_id == program.context.span_id
    assert [event.name for event in span.events] == ["answered"]
    assert span.attributes is not None
    assert span.attributes["agentao.q850_cause"] == 16
    assert span.attributes["agentao.call_sid"] == call.call_sid
    for name in ("Originate", "Terminate"):
        parent = traces[name].parent
        assert parent is not None
        assert parent.span_id == span.context.span_id
    assert traces["GetActiveBuckets"].parent is None
    [request] = originated
    assert request.traceparent.startswith(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-")


async def test_a_traceparent_of_the_program_s_own_goes_first(
    traces: Traces, originated: list[messages.OriginateRequest], autojump_clock: MockClock
) -> None:
    async with simulated() as (session, _):
        trace(session, traces.provider)
        async with await session.originate(ECHO, trunk_id="main", traceparent=PARENT):
            pass
    assert originated[0].traceparent == PARENT


async def test_a_refusal_is_an_error_of_both_spans(traces: Traces, autojump_clock: MockClock) -> None:
    async with simulated() as (session, _):
        trace(session, traces.provider)
        with pytest.raises(CommandRejected):
            await session.originate(REFUSED, trunk_id="main")
    assert traces["Originate"].status.status_code is StatusCode.ERROR
    assert traces["call"].status.status_code is StatusCode.ERROR


async def test_a_call_that_is_open_when_the_session_ends(traces: Traces, autojump_clock: MockClock) -> None:
    async with simulated() as (session, _):
        trace(session, traces.provider)
        await session.originate(ECHO, trunk_id="main")
    assert traces["call"].end_time is not None


async def test_without_a_tracer_nothing_is_told(
    originated: list[messages.OriginateRequest], autojump_clock: MockClock
) -> None:
    async with simulated() as (session, _):
        trace(session, NoOpTracerProvider())
        async with await session.originate(ECHO, trunk_id="main"):
            pass
    assert originated[0].traceparent == ""


def test_without_the_extra_it_is_named() -> None:
    program = "import sys; sys.modules['opentelemetry'] = None\nimport agentao_trio\nimport agentao_trio.tracing"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'agentao-trio[metrics]'" in done.stderr.splitlines()[-1]
