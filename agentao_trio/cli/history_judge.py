"""Stored events before the rules of the conformance kit: was the gateway right, on that day?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

import agentao_trio.conformance.checks  # noqa: F401 - registers the rules
from agentao_trio import messages
from agentao_trio.conformance.requirements import REQUIREMENTS, Judgement, Level, Requirement
from agentao_trio.conformance.trace import Observation, Trace, What
from agentao_trio.messages import EventStreamRequest, MethodId
from agentao_trio.records import Record, RecordKind
from agentao_trio.wire import encode_request

__all__ = ["Judged", "judge", "not_told", "trace_of"]


#: Rules about what is not stored, and what that is.
_NOT_TOLD = {
    **dict.fromkeys(("DWN-01", "DWN-03", "DWN-06", "DWN-07", "DWN-08"), "audio is not stored"),
    "FRM-01": "lengths of frames are not stored, only what is in them",
    **dict.fromkeys(("RPC-01", "RPC-02", "RPC-04"), "replies are not stored, only what came of them"),
    "SUB-01": "which streams events came on is not stored",
}
#: A rule that can be judged where the connections of the session are stored, and the reason where they are not.
_SUBSCRIPTION, _BEFORE = "SUB-02", "what was subscribed to was not stored, as the session was connected before"


@attrs.frozen
class Judged:
    """A rule, and what it has to say."""

    rule: Requirement
    judgement: Judgement

    @property
    def verdict(self) -> str:
        """pass, fail, warn for what only should be, or open where nothing stored tells."""
        if self.judgement.findings:
            return "fail" if self.rule.level is Level.MUST else "warn"
        return "open" if self.judgement.open_because else "pass"


def trace_of(records: Iterable[Record]) -> Trace:
    """What the gateway sent of events in one run, as a trace; each connection of the session is a link of its own, with
    the request that subscribed on it."""
    seen: list[Observation] = []
    connections, began = 0, None
    for record in records:
        began = record.at if began is None else began
        link, data = f"{max(0, connections - 1)}", record.raw
        if _connects(record):
            connections += 1
            what, link = What.REQUEST, f"{connections - 1}"
            subscription = EventStreamRequest(client_id=str(record.data.get("client_id", "")))
            data = encode_request(MethodId.StreamEvents, messages.encode(subscription))
        elif record.kind is RecordKind.EVENT:
            what = What.FRAME
        else:
            continue
        method = MethodId.StreamEvents
        seen.append(Observation(at=record.at - began, what=what, link=link, stream=0, method=method, data=data))
    return Trace(seen)


def not_told(records: Iterable[Record]) -> dict[str, str]:
    """The rules that events could tell of and that the records of one run do not, with the reason."""
    first = next((each for each in records if each.kind is RecordKind.EVENT or _connects(each)), None)
    return {**_NOT_TOLD, **({} if first is None or _connects(first) else {_SUBSCRIPTION: _BEFORE})}


def _connects(record: Record) -> bool:
    return record.kind is RecordKind.SESSION and record.data.get("state") == "connected"


def judge(records: Sequence[Record]) -> Sequence[Judged]:
    """Every rule that holds of any trace, and that events tell of, on those of one run."""
    trace, left_out = trace_of(records), not_told(records)
    rules = [rule for rule in REQUIREMENTS.values() if rule.everywhere and rule.id not in left_out]
    return [Judged(rule, rule.of(trace)) for rule in rules]
