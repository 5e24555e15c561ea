"""What a session and its calls tell the hub, in the form that :mod:`agentao_trio.records` describes."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import trio

from agentao_trio.callstate import CallState, Verdict
from agentao_trio.errors import AgentaoError, CallEnded, CallOverrun, CommandError, CommandRejected, CommandTimeout
from agentao_trio.events import EventRecord
from agentao_trio.hub import Hub
from agentao_trio.legible import legible
from agentao_trio.messages import MethodId
from agentao_trio.records import RecordKind, plain
from agentao_trio.statistics import CallStatistics, SessionState

__all__ = ["Chronicle", "event", "over", "quality"]

#: Seconds between two records of one call's quality.
_QUALITY_INTERVAL = 1.0
#: Fields that may hold a secret: never recorded.
_SECRETS = frozenset({"auth_token"})
#: Asked every second or so: only failures are worth a record.
_ASKED_AGAIN_AND_AGAIN = frozenset({MethodId.GetIncomingCalls})
_VERDICTS = {verdict: verdict.value.replace(" ", "_") for verdict in Verdict}


class Chronicle:
    """Publishes what the session does. It is an :class:`~agentao_trio.commands.Observer` of its own session."""

    def __init__(self, hub: Hub, *, client_id: str, calls: Mapping[str, Any]) -> None:
        self._hub = hub
        self._client_id = client_id
        self._calls = calls
        self._commands = itertools.count(1)

    def state(self, state: SessionState, reason: str = "") -> None:
        """The session is connected, reconnecting or closed."""
        fields = {"state": state.value, "client_id": self._client_id, **({"reason": reason} if reason else {})}
        self._hub.publish(RecordKind.SESSION, data=lambda: fields)

    def event(self, record: EventRecord) -> None:
        """The gateway said something, whatever is made of it."""
        self._hub.publish(
            RecordKind.EVENT,
            record.call_sid,
            raw=record.raw,
            at=record.received_at,
            data=lambda: event(record),
        )

    def handler_failed(self, call: Any, what: str, error: Exception) -> None:
        """A handler of ``what`` raised, which is the end of its call."""
        while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]  # a nursery's group of one says nothing
        kind = type(error).__name__
        failed = {"source": "handler", "type": kind, "message": legible(f"{what}: {str(error) or kind}")}
        self._hub.publish(RecordKind.ERROR, call.call_sid, data=lambda: {**failed, "fatal": True})

    def call_began(self, call: Any) -> str:
        """A call was placed, or has come in. It has no trace context of its own."""

        def data() -> dict[str, Any]:
            known = {"trunk_id": call.trunk_id} if call.trunk_id else {}
            parties = {"caller": call.caller, "callee": call.callee}
            began: dict[str, Any] = plain({"phase": "began", "direction": call.direction, **parties, **known})
            return began

        self._hub.publish(RecordKind.CALL, call.call_sid, data=data)
        return ""

    @contextlib.contextmanager
    def command(self, method: MethodId, message: Any) -> Iterator[None]:
        """What to be within while a command is sent and answered."""
        if not self._hub.has_readers:
            yield
            return
        call_sid = getattr(message, "call_sid", "")
        began, identity = trio.current_time(), {"command": next(self._commands), "method": method.name}
        quiet = method in _ASKED_AGAIN_AND_AGAIN
        if not quiet:
            sent = {**identity, "phase": "sent", "request": _fields(message)}
            self._hub.publish(RecordKind.COMMAND, call_sid, data=lambda: sent)
        outcome: dict[str, Any] = {"phase": "abandoned"}
        try:
            yield
            outcome = {"phase": "answered"}
        except AgentaoError as error:
            outcome = {"phase": _phase(error), "error": legible(str(error))}
            if isinstance(error, CommandError) and error.code is not None:
                outcome["code"] = plain(error.code)
            raise
        finally:
            outcome = {**identity, **outcome, "seconds": trio.current_time() - began}
            if not quiet or outcome["phase"] not in ("answered", "abandoned"):
                self._hub.publish(RecordKind.COMMAND, call_sid, data=lambda: outcome)

    async def run(self) -> None:
        """Publish every answered call's quality about once a second, while somebody listens. Ends when cancelled."""
        while True:
            await self._hub.wait_read()
            calls = [call for call in self._calls.values() if call.state in (CallState.ANSWERED, CallState.CONNECTED)]
            # One by one over the second: all at once they would hold up the packet clock.
            pause = _QUALITY_INTERVAL / max(1, len(calls))
            for call in calls:
                if call.state is not CallState.DISCONNECTED:
                    self._hub.publish(RecordKind.QUALITY, call.call_sid, data=functools.partial(quality, call))
                await trio.sleep(pause)
            if not calls:
                await trio.sleep(pause)


def _phase(error: AgentaoError) -> str:
    if isinstance(error, CommandRejected):
        return "refused"
    return "timed_out" if isinstance(error, CommandTimeout) else "failed"


def _fields(message: Any) -> dict[str, Any]:
    fields: dict[str, Any] = plain(message)
    if str(fields.get("tenant_id", "")).startswith("eyJ"):
        fields["tenant_id"] = "…"  # some clients put their token in its place (PROTOCOL section 2.3)
    return {name: value for name, value in fields.items() if name not in _SECRETS}


def event(record: EventRecord) -> dict[str, Any]:
    """The data of a record of the gateway's event."""
    return {"verdict": _VERDICTS[record.verdict], "event": _fields(record.event)}


def quality(call: Any, *, final: bool = False) -> dict[str, Any]:
    """The data of a call's quality record."""
    figures: CallStatistics = call.statistics()
    expected = figures.packets_received + figures.packets_lost
    return {
        "mos": None if figures.estimated_mos is None else round(figures.estimated_mos, 3),
        "jitter_ms": round(figures.jitter_ms, 3),
        "packets_received": figures.packets_received,
        "packets_sent": figures.packets_sent,
        "packets_lost": figures.packets_lost,
        "packet_loss_pct": round(100 * figures.packets_lost / expected, 3) if expected else 0.0,
        "packets_shed": figures.packets_shed,
        "codec": plain(figures.codec_received),
        "final": final,
    }


def over(call: Any, failure: Exception | None) -> dict[str, Any]:
    """The data of the record that a call has ended, confirmed by the gateway or for the reason of ``failure``."""
    data: dict[str, Any] = {"phase": "over", "how": "released" if call.released else _how(failure)}
    if failure is not None:
        data["error"] = legible(str(failure))
    return {**data, "statistics": plain(call.statistics())}


def _how(failure: Exception | None) -> str:
    match failure:
        case None:
            return "hangup"
        case CommandRejected():
            return "refused"
        case CallOverrun():
            return "overrun"
        case CallEnded():
            return "left"
    return "lost"
