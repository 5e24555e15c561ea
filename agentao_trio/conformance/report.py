"""What a run came to, for people and for machines: terminal, JSON, JUnit, HTML.

Everything here is a pure function of a :class:`~agentao_trio.conformance.runner.RunReport`.
"""

from __future__ import annotations

import html
import json
from collections import Counter
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agentao_trio import messages
from agentao_trio.conformance.catalogue import SECTIONS
from agentao_trio.conformance.runner import Attempt, Result, RunReport, Verdict
from agentao_trio.conformance.trace import Observation, Trace, What
from agentao_trio.errors import RemoteProtocolError
from agentao_trio.legible import legible
from agentao_trio.messages import AudioFrame, CallEvent, EventType, MethodId
from agentao_trio.records import plain

__all__ = ["as_html", "as_json", "as_junit", "as_table", "replay_file", "told", "trace_file"]

_STYLES = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.WARN: "yellow",
    Verdict.INFO: "cyan",
    Verdict.INCONCLUSIVE: "magenta",
    Verdict.UNSUPPORTED: "dim",
    Verdict.SKIPPED: "dim",
    Verdict.ERROR: "bold red reverse",
}


# -- terminal -------------------------------------------------------------------------------------------------------


def as_table(report: RunReport) -> RenderableType:
    """A table by section, the failures explained below it, and one line that sums it up."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("Check", "Level", "Verdict", "Rule"):
        table.add_column(heading)
    section = ""
    for result in report.results:
        rule = result.requirement
        if rule.section != section:
            section = rule.section
            table.add_section()
            table.add_row(Text(section, style="bold"), "", "", Text(SECTIONS.get(section, ""), style="bold"))
        verdict = Text(result.verdict.value + (" (waived)" if result.waived else ""), style=_STYLES[result.verdict])
        words = Text(rule.title, overflow="fold")
        if result.reason and result.verdict is not Verdict.PASS:
            words.append(f"\n{legible(result.reason, 300)}", style="dim")
        table.add_row(rule.id, rule.level.value, verdict, words)
    parts: list[RenderableType] = [table]
    parts += [Text(text, style="") for result in _bad(report) if (text := told(result))]
    parts.append(Text(_sum(report)))
    return Group(*parts)


def _bad(report: RunReport) -> list[Result]:
    return [each for each in report.results if each.verdict in (Verdict.FAIL, Verdict.WARN, Verdict.ERROR)]


def told(result: Result) -> str:
    """A failure that explains itself: the rule, its source, what was expected and seen, and how to see it again."""
    rule = result.requirement
    lines = [f"{rule.id} {result.verdict.value.upper()}: {rule.title}", f"  source    {rule.source}"]
    if result.waived:
        lines.append(f"  waived    {result.waived}")
    for finding in result.findings[:3]:
        where = f" (call {legible(finding.call_sid, 60)})" if finding.call_sid else ""
        lines += [f"  expected  {finding.expected}", f"  seen      {legible(finding.seen, 300)}{where}"]
    if not result.findings and result.reason:
        lines.append(f"  reason    {legible(result.reason, 300)}")
    failed = sum(each.failed for each in result.attempts)
    lines.append(f"  seen in   {failed} of {len(result.attempts)} runs")
    if result.example is not None:
        lines.append(f"  shortest  {json.dumps(result.example)[:300]}")
    # A terminal would break it where no shell reads on.
    target = result.target.replace(" ", " \\\n              ", 1)
    lines.append(f"  again     agentao-trio conformance {target} --only {rule.id} --seed {result.run_seed}")
    return "\n".join(lines) + "\n"


def _sum(report: RunReport) -> str:
    counts = Counter(result.verdict for result in report.results)
    verdicts = ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict if counts[verdict])
    stopped = f"\nStopped early: {report.stopped}" if report.stopped else ""
    return (
        f"{len(report.results)} checks against {report.target}: {verdicts}. "
        f"{report.calls} calls, {report.seconds:.1f} s, seed {report.seed}.{stopped}"
    )


# -- machines -------------------------------------------------------------------------------------------------------


def as_json(report: RunReport) -> dict[str, Any]:
    """Everything but the traces."""
    return {
        "format": 1,
        "target": report.target,
        "seed": report.seed,
        "calls": report.calls,
        "seconds": round(report.seconds, 3),
        "rtt_ms": report.rtt_ms,
        "loss": report.loss,
        "stopped": report.stopped,
        "exit_status": report.exit_status,
        "results": [_result(result) for result in report.results],
    }


def _result(result: Result) -> dict[str, Any]:
    rule = result.requirement
    return {
        "id": rule.id,
        "level": rule.level.value,
        "title": rule.title,
        "source": rule.source,
        "verdict": result.verdict.value,
        "waived": result.waived,
        "reason": result.reason,
        "seconds": round(result.seconds, 3),
        "attempts": len(result.attempts),
        "failed": sum(each.failed for each in result.attempts),
        "example": plain(result.example),
        "findings": [plain(finding) for finding in result.findings],
    }


def as_junit(report: RunReport) -> str:
    """JUnit's XML: a suite per section; warnings pass, everything that was not judged is skipped."""
    suites = []
    for section in dict.fromkeys(result.requirement.section for result in report.results):
        results = [each for each in report.results if each.requirement.section == section]
        cases = "".join(map(_case, results))
        bad = sum(each.verdict is Verdict.FAIL and not each.waived for each in results)
        errors = sum(each.verdict is Verdict.ERROR for each in results)
        suites.append(
            f'<testsuite name={quoteattr(section)} tests="{len(results)}" failures="{bad}" errors="{errors}" '
            f'time="{sum(each.seconds for each in results):.3f}">{cases}</testsuite>'
        )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="conformance">{"".join(suites)}</testsuites>\n'


def _case(result: Result) -> str:
    rule = result.requirement
    inner = ""
    if result.verdict is Verdict.FAIL and not result.waived:
        inner = f"<failure message={quoteattr(_clean(result.reason))}>{escape(_clean(told(result)))}</failure>"
    elif result.verdict is Verdict.ERROR:
        inner = f"<error message={quoteattr(_clean(result.reason))}/>"
    elif result.verdict not in (Verdict.PASS, Verdict.INFO):
        inner = f"<skipped message={quoteattr(_clean(f'{result.verdict.value}: {result.reason}'))}/>"
    name = quoteattr(f"{rule.id} {rule.title}")
    return f'<testcase classname={quoteattr(rule.section)} name={name} time="{result.seconds:.3f}">{inner}</testcase>'


def _clean(text: str) -> str:
    """XML knows no control characters, whatever a gateway writes."""
    return "\n".join(legible(line, 2000) for line in text.splitlines())


def replay_file(result: Result, report: RunReport) -> dict[str, Any]:
    """All that it takes to run a failing check again, and what was found: the file for ``--replay``."""
    return {
        "format": 1,
        "check": result.requirement.id,
        "seed": report.seed,
        "example": plain(result.example),
        "findings": [plain(finding) for finding in result.findings],
    }


def trace_file(result: Result) -> str:
    """The trace of a failing check's last attempt, which its findings are about: a line of JSON per observation, as
    :meth:`Observation.from_json` takes it."""
    failed = next((each for each in reversed(result.attempts) if each.failed), None)
    lines = failed.trace if failed is not None else ()
    return "".join(json.dumps(line.as_json(), ensure_ascii=False) + "\n" for line in lines)


# -- HTML -----------------------------------------------------------------------------------------------------------


def as_html(report: RunReport) -> str:
    """One page that needs nothing else: the table, and for each failing check its timeline."""
    rows = []
    section = ""
    for result in report.results:
        rule = result.requirement
        if rule.section != section:
            section = rule.section
            rows.append(f'<tr class="section"><th colspan="4">{section} – {_h(SECTIONS.get(section, ""))}</th></tr>')
        waived = f" (waived: {_h(result.waived)})" if result.waived else ""
        bad = result.verdict in (Verdict.FAIL, Verdict.WARN)
        name = f'<a href="#{rule.id}">{rule.id}</a>' if bad else rule.id
        reason = f"<small>{_h(legible(result.reason, 400))}</small>" if result.reason else ""
        rows.append(
            f'<tr><td>{name}</td><td>{rule.level.value}</td><td class="{result.verdict.value}">'
            f"{result.verdict.value}{waived}</td><td>{_h(rule.title)}{reason}</td></tr>"
        )
    details = "".join(_detail(result) for result in _bad(report))
    return _PAGE.format(
        target=_h(report.target), sum=_h(_sum(report)), rows="".join(rows), details=details, style=_STYLE
    )


def _detail(result: Result) -> str:
    rule = result.requirement
    attempt = next((each for each in reversed(result.attempts) if each.failed), None)
    timeline = _timeline(attempt) if attempt is not None else ""
    return (
        f'<section id="{rule.id}"><h2>{rule.id} <span class="{result.verdict.value}">{result.verdict.value}</span></h2>'
        f"<pre>{_h(told(result))}</pre>{timeline}</section>"
    )


#: Lines of a timeline that are shown: those around what was found, and the beginning.
_LINES = 250


def _timeline(attempt: Attempt) -> str:
    broken = {finding.index: finding for finding in attempt.judgement.findings if finding.index is not None}
    rows = []
    shown = _shown(attempt.trace, set(broken))
    before = -1
    for index in shown:
        line = attempt.trace[index]
        if index != before + 1:
            rows.append(f'<tr class="gap"><td colspan="5">{index - before - 1} lines</td></tr>')
        before = index
        found = broken.get(index)
        mark = f'<div class="found">expected {_h(found.expected)}</div>' if found is not None else ""
        rows.append(
            f'<tr{" class=broken" if found is not None else ""}><td class="n">{line.at:.3f}</td>'
            f"<td>{_h(line.link)}</td>"
            f'<td class="n">{"" if line.stream is None else line.stream}</td><td>{line.what.value}</td>'
            f"<td>{_h(in_words(line))}{mark}</td></tr>"
        )
    return (
        "<table class=timeline><thead><tr><th>s</th><th>link</th><th>stream</th><th></th><th></th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _shown(trace: Trace, broken: set[int]) -> list[int]:
    quiet = [index for index, line in enumerate(trace) if not _is_audio(line) or index in broken]
    if len(quiet) <= _LINES:
        return quiet
    near = {each for index in broken for each in quiet if abs(each - index) < 40}
    return sorted({*quiet[:100], *sorted(near)[: _LINES - 100], *quiet[-10:]})


def _is_audio(line: Observation) -> bool:
    return line.what is What.SENT or (
        line.what is What.FRAME and messages.method_of(line.method or 0) is MethodId.AudioFrame
    )


def in_words(line: Observation) -> str:
    """One line of a trace, for people."""
    if line.what is What.FRAME and line.method is not None:
        return _frame_in_words(line)
    parts = []
    if line.method is not None:
        method = messages.method_of(line.method)
        parts.append(method.name if method is not None else f"method {line.method}")
    if line.data:
        parts.append(f"{len(line.data)} bytes")
    if line.note:
        parts.append(legible(line.note, 200))
    if line.code is not None:
        parts.append(f"code {line.code}")
    parts += [f"{name} {legible(str(value), 80)}" for name, value in line.facts.items()]
    return ", ".join(parts)


def _frame_in_words(line: Observation) -> str:
    method = messages.method_of(line.method or 0)
    try:
        if method is MethodId.StreamEvents:
            event = messages.decode(CallEvent, line.data)
            known = event.event_type in tuple(EventType)
            kind = EventType(event.event_type).name if known else f"event {event.event_type}"
            cause = f", cause {event.q850_cause}" if event.q850_cause else ""
            return f"{kind} {legible(event.status, 40)} of {legible(event.call_sid, 60)} at {event.timestamp_ms}{cause}"
        if method is MethodId.AudioFrame:
            frame = messages.decode(AudioFrame, line.data)
            end = ", end of stream" if frame.end_of_stream else ""
            return f"audio {frame.sequence_number} of {legible(frame.call_sid, 60)}, {len(frame.payload)} bytes{end}"
    except RemoteProtocolError as error:
        return f"{len(line.data)} bytes that cannot be decoded: {error}"
    return f"method {line.method}, {len(line.data)} bytes"


def _h(text: str) -> str:
    return html.escape(text)


_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #8884; }
td:first-child { white-space: nowrap; }
tr.section th { padding-top: 1.4rem; font-size: 1.05rem; }
small { display: block; opacity: .75; }
pre { padding: 1rem; background: #8881; overflow-x: auto; white-space: pre-wrap; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.pass { color: #18794e; } .fail, .error { color: #c62a2f; font-weight: 700; }
.warn { color: #a35200; font-weight: 600; }
.info { color: #0b68cb; } .inconclusive { color: #8445bc; } .unsupported, .skipped { opacity: .6; }
.timeline { font-size: .85rem; } tr.gap td { opacity: .6; text-align: center; }
tr.broken td { background: #c62a2f22; } .found { color: #c62a2f; font-weight: 600; }
@media (prefers-color-scheme: dark) {
  .pass { color: #4cc38a; } .fail, .error, .found { color: #ff8589; } .warn { color: #ffa057; }
  .info { color: #70b8ff; } .inconclusive { color: #c79bec; }
}
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Conformance of {target}</title><style>{style}</style></head>
<body><h1>Conformance of {target}</h1><p>{sum}</p>
<table><thead><tr><th>Check</th><th>Level</th><th>Verdict</th><th>Rule</th></tr></thead><tbody>{rows}</tbody></table>
{details}</body></html>
"""
