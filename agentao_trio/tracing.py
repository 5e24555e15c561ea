"""OpenTelemetry traces of a session. Needs the extra ``metrics``.

::

    async with open_session("quic://gateway.example:9090") as session:
        trace(session)

Each call is a span from placing it, or its coming in, to its end, below the span that is active then. Each command is
a span too, below that of the call it is about. The gateway is told of a call's span when the call is placed
(``traceparent``, PROTOCOL section 9.1), so that its own spans can go below it. Telephone numbers are not put on spans,
but the words with which a gateway refuses something are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

try:
    from opentelemetry.trace import (
        Span,
        SpanKind,
        Status,
        StatusCode,
        TracerProvider,
        get_tracer,
        set_span_in_context,
    )
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ModuleNotFoundError as _missing:
    raise ModuleNotFoundError(
        "agentao_trio.tracing needs the extra 'metrics': pip install 'agentao-trio[metrics]'", name=_missing.name
    ) from _missing

from agentao_trio.call import ActiveCall
from agentao_trio.errors import AgentaoError, CallEnded
from agentao_trio.messages import MethodId
from agentao_trio.session import Session

__all__ = ["trace"]


def trace(session: Session, tracer_provider: TracerProvider | None = None) -> None:
    """Trace the calls and commands of ``session`` from now on; by default with OpenTelemetry's global provider."""
    session.observers.append(_Tracing(session, tracer_provider))


class _Tracing:
    def __init__(self, session: Session, tracer_provider: TracerProvider | None) -> None:
        self._session = session
        self._tracer = get_tracer("agentao_trio", tracer_provider=tracer_provider)
        self._spans: dict[ActiveCall, Span] = {}

    def call_began(self, call: ActiveCall) -> str:
        span = self._tracer.start_span("call", kind=SpanKind.CLIENT)
        self._spans[call] = span
        self._session.start(partial(self._follow, call, span))
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, set_span_in_context(span))
        return carrier.get("traceparent", "")

    async def _follow(self, call: ActiveCall, span: Span) -> None:
        """Ends the span with the call, or with the session."""
        try:
            with contextlib.suppress(CallEnded):
                await call.wait_answered()
                span.add_event("answered")
            ending = await call.wait_ended()
            span.set_attribute("agentao.q850_cause", ending.q850_cause)
            span.set_attribute("agentao.packets_lost", ending.statistics.packets_lost)
            if ending.statistics.estimated_mos is not None:
                span.set_attribute("agentao.estimated_mos", ending.statistics.estimated_mos)
        except AgentaoError as error:
            span.set_status(Status(StatusCode.ERROR, str(error)))
        finally:
            span.set_attribute("agentao.call_sid", call.call_sid)  # the gateway may have given it another one
            span.end()
            del self._spans[call]

    @contextlib.contextmanager
    def command(self, method: MethodId, message: Any) -> Iterator[None]:
        call_sid = getattr(message, "call_sid", "")
        call = self._session.calls.get(call_sid)
        parent = self._spans.get(call) if call is not None else None
        with self._tracer.start_as_current_span(
            method.name,
            context=set_span_in_context(parent) if parent is not None else None,
            kind=SpanKind.CLIENT,
            attributes={"rpc.method": method.name, **({"agentao.call_sid": call_sid} if call_sid else {})},
        ):
            yield
