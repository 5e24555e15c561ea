"""Stored events before the rules of the conformance kit: was the gateway right, on that day?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

import agentao_trio.conformance.checks  # noqa: F401 - registers the rules
from agentao_trio.conformance.requirements import REQUIREMENTS, Judgement, Level, Requirement
from agentao_trio.conformance.trace import Observation, Trace, What
from agentao_trio.messages import MethodId
from agentao_trio.records import Record, RecordKind

__all__ = ["Judged", "judge", "trace_of"]


#: Rules about what is not stored: the streams that events came on, and what was subscribed to.
_NOT_TOLD = frozenset({"SUB-01", "SUB-02"})


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
    """What the gateway sent of events in one run, as a trace; each connection of the session is a link of its own."""
    seen: list[Observation] = []
    connections, began = 0, None
    for record in records:
        began = record.at if began is None else began
        if record.kind is RecordKind.SESSION and record.data.get("state") == "connected":
            connections += 1
        if record.kind is RecordKind.EVENT:
            link = chr(ord("A") + max(0, connections - 1)) if connections <= 26 else f"Z{connections}"
            frame = Observation(
                at=record.at - began,
                what=What.FRAME,
                link=link,
                stream=0,
                method=MethodId.StreamEvents,
                data=record.raw,
            )
            seen.append(frame)
    return Trace(seen)


def judge(records: Iterable[Record]) -> Sequence[Judged]:
    """Every rule that holds of any trace, and that events tell of, on those of one run."""
    trace = trace_of(records)
    rules = [rule for rule in REQUIREMENTS.values() if rule.everywhere and rule.id not in _NOT_TOLD]
    return [Judged(rule, rule.of(trace)) for rule in rules]
