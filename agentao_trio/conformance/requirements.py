"""Rules over a trace: each one a pure function with an id, a level and a source.

A requirement never looks at the network. It is handed a :class:`~agentao_trio.conformance.trace.Trace`, says what it
found to a :class:`Judgement`, and may be asked about any trace: one the runner has made for it, another rule's, or a
stored one. A trace that does not contain what the rule is about leaves the judgement open.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import attrs

from agentao_trio.conformance.trace import Trace

__all__ = ["REQUIREMENTS", "Finding", "Judgement", "Level", "Requirement", "requirement"]


class Level(StrEnum):
    """How binding a rule is (RFC 2119)."""

    MUST = "must"
    SHOULD = "should"
    #: Nothing is required: the behaviour is reported.
    INFO = "info"


@attrs.frozen(kw_only=True)
class Finding:
    """One way in which a trace breaks a rule, so that a person understands it without reading the trace."""

    expected: str
    seen: str
    #: The observation that shows it: its place in the trace.
    index: int | None = None
    call_sid: str = ""


class Judgement:
    """What a requirement has to say about one trace."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        #: What is reported without being right or wrong.
        self.reports: list[str] = []
        #: Why the rule could not be judged; empty where it was.
        self.open_because: str = ""
        #: How many times the rule was applied.
        self.judged: int = 0

    def __repr__(self) -> str:
        state = f"left open: {self.open_because}" if self.open_because else f"judged {self.judged} times"
        return f"<Judgement {state}, {len(self.findings)} findings>"

    def expect(self, holds: bool, *, expected: str, seen: Any, index: int | None = None, call_sid: str = "") -> bool:
        """The rule was applied once; where it does not hold, that is a finding. Returns ``holds``."""
        self.judged += 1
        if not holds:
            self.findings.append(Finding(expected=expected, seen=str(seen), index=index, call_sid=call_sid))
        return holds

    def report(self, what: str) -> None:
        """Behaviour that is worth knowing and nobody's fault."""
        self.reports.append(what)
        self.judged += 1

    def leave_open(self, why: str) -> None:
        """The trace does not contain what the rule is about."""
        self.open_because = self.open_because or why


@attrs.frozen(kw_only=True)
class Requirement:
    """One rule of the catalogue."""

    id: str
    level: Level
    #: The rule, in one sentence of the present tense.
    title: str
    #: Where it comes from.
    source: str
    judge: Callable[[Trace, Judgement], None] = attrs.field(eq=False, repr=False)
    #: Whether it holds of every trace, so that other checks' undisturbed traces are evidence too.
    everywhere: bool = False

    @property
    def section(self) -> str:
        """The letters before the dash."""
        return self.id.partition("-")[0]

    def of(self, trace: Trace) -> Judgement:
        """The judgement on a trace; open where the rule was never applied."""
        judgement = Judgement()
        self.judge(trace, judgement)
        if not judgement.judged:
            judgement.leave_open("the trace holds nothing that this rule applies to")
        return judgement


#: Every rule by id, in the order of the catalogue once all of the package's rule modules are imported.
REQUIREMENTS: dict[str, Requirement] = {}

Judge = Callable[[Trace, Judgement], None]


def requirement(
    identity: str, level: Level, title: str, *, source: str, everywhere: bool = False
) -> Callable[[Judge], Judge]:
    """Register a function as the judge of a rule."""

    def register(judge: Judge) -> Judge:
        assert identity not in REQUIREMENTS, identity
        REQUIREMENTS[identity] = Requirement(
            id=identity, level=level, title=title, source=source, judge=judge, everywhere=everywhere
        )
        return judge

    return register
