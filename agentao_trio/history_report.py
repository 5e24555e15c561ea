"""What many calls came to, as one HTML page that needs nothing else: tables and plots, light or dark. Sans-IO."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from agentao_trio.analytics import Distribution, Figures, Spread, ToolFigures
from agentao_trio.causes import q850_name
from agentao_trio.plots import bar_plot
from agentao_trio.summaries import CallSummary

__all__ = ["report"]

#: Bars of a histogram, and hours of the plot of calls: beyond that its bars are days.
_BARS, _MOST_HOURS = 24, 72

_STYLE = """
:root{color-scheme:light dark;--ink:#1d2430;--soft:#5b6675;--paper:#fff;--card:#f5f7fa;--line:#dde3ea;--mark:#0072b2}
@media(prefers-color-scheme:dark){
:root{--ink:#e4e9f0;--soft:#9aa7b6;--paper:#12161c;--card:#1b2129;--line:#2c3540;--mark:#56b4e9}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 3rem;max-width:68rem;font:15px/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--paper)}
h1{font-size:1.5rem;margin:0}
h2{font-size:1.1rem;margin:2.2rem 0 .7rem}
p{margin:.3rem 0;color:var(--soft)}
.tiles,.plots{display:grid;gap:.8rem}
.tiles{grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));margin-top:1.2rem}
.tile{background:var(--card);border-radius:.5rem;padding:.7rem .9rem}
.tile b{display:block;font-size:1.5rem;line-height:1.2;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:.85rem}
.plots{grid-template-columns:repeat(auto-fit,minmax(min(26rem,100%),1fr))}
.plots figure{margin:0;background:var(--card);border-radius:.5rem;padding:.5rem}
.plots svg{display:block;width:100%;height:auto}
.table{overflow-x:auto}
table{border-collapse:collapse;min-width:min(30rem,100%);font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.3rem .7rem .3rem 0;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-weight:600}
.n{text-align:right}
"""


def report(
    figures: Figures,
    calls: Iterable[CallSummary],
    *,
    distributions: Mapping[str, Distribution],
    title: str = "Calls",
    zone: datetime.tzinfo | None = None,
) -> str:
    """The page. ``calls`` are those to be listed, in their order; ``distributions`` are drawn, by what they are called.

    Times are told in ``zone``, by default UTC.
    """
    zone = zone or datetime.UTC
    clock = _Clock(zone)
    sections = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(_period(figures, clock))}</p>",
        _tiles(figures),
        _plots(figures, distributions, clock),
        _table("How they ended", ("Status", ">Calls", ">Share"), _shares(figures.by_status)),
        _table(
            "Causes (Q.850)",
            (">Cause", "Meaning", ">Calls"),
            [(str(cause), name, str(count)) for cause, (name, count) in figures.by_cause.items()],
        ),
        _table(
            "Trunks",
            ("Trunk", ">Calls", ">Answered", ">Rate"),
            [
                (name or "(none)", str(each.calls), str(each.answered), _percent(each.answered, each.calls))
                for name, each in figures.by_trunk.items()
            ],
        ),
        _table("Who picked up", ("Who", ">Calls", ">Share"), _shares(figures.by_answerer)),
        _table(
            "Times and quality",
            ("", ">Count", ">Mean", ">Least", ">p50", ">p90", ">p95", ">p99", ">Most"),
            [
                (name, str(spread.count), *map(_figure, _values(spread)))
                for name, spread in figures.spreads().items()
                if spread.count
            ],
        ),
        _timed("Tools", "Tool", figures.tools),
        _timed("Commands", "Command", figures.commands),
        _table("Errors", ("Error", ">Count"), [(name, str(count)) for name, count in figures.errors.items()]),
        _calls(list(calls), clock),
    ]
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
            *filter(None, sections),
            "</body>\n</html>\n",
        ]
    )


class _Clock:
    """Unix seconds in somebody's time."""

    def __init__(self, zone: datetime.tzinfo) -> None:
        self._zone = zone

    def tell(self, at: float | None, form: str = "%Y-%m-%d %H:%M:%S") -> str:
        return "" if at is None else datetime.datetime.fromtimestamp(at, self._zone).strftime(form)


def _period(figures: Figures, clock: _Clock) -> str:
    if figures.first_at is None:
        return "Nothing was recorded."
    first, last = clock.tell(figures.first_at), clock.tell(figures.last_at, "%Y-%m-%d %H:%M:%S %Z")
    return f"{first} to {last}, {figures.records} records"


def _tiles(figures: Figures) -> str:
    tiles = {
        "calls": str(figures.calls),
        "inbound": str(figures.inbound),
        "outbound": str(figures.outbound),
        "answered": "–" if figures.answer_rate is None else f"{100 * figures.answer_rate:.1f} %",
        "talked, median": _with_unit(figures.seconds_talked.p50, "s"),
        "MOS (estimate), median": _figure(figures.mos.p50) or "–",
        "reply after speech, p95": _with_unit(figures.turn_seconds.p95, "s"),
        "turns": str(figures.turns) if figures.turns else "",
        "interrupted": _percent(figures.barge_ins, figures.turns),
        "tokens": str(figures.tokens) if figures.tokens else "",
        "reconnects": str(figures.reconnects) if figures.reconnects else "",
        "packets missing": str(figures.packets_missing) if figures.packets_missing else "",
        "in progress": str(figures.open) if figures.open else "",
    }
    cells = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value in tiles.items()
        if value
    )
    return f'<div class="tiles">{cells}</div>'


def _plots(figures: Figures, distributions: Mapping[str, Distribution], clock: _Clock) -> str:
    plots = [_by_hour(figures, clock)] if figures.by_hour else []
    plots += [_histogram(name, each) for name, each in distributions.items() if each.count]
    if not plots:
        return ""
    return f'<h2>At a glance</h2><div class="plots">{"".join(f"<figure>{plot}</figure>" for plot in plots)}</div>'


def _by_hour(figures: Figures, clock: _Clock) -> str:
    hours = figures.by_hour
    first, last = min(hours), max(hours)
    by_day = (last - first) // 3600 >= _MOST_HOURS
    form = "%d %b" if by_day else "%H:00"
    counts: dict[str, list[int]] = {}
    for hour in range(first, last + 1, 3600) if not by_day else hours:
        calls, answered = hours.get(hour, (0, 0))
        # Two days have the same hours: the key tells them apart, the label need not.
        row = counts.setdefault(clock.tell(hour, "%Y-%m-%d" if by_day else "%Y-%m-%d %H"), [0, 0, hour])
        row[0] += answered
        row[1] += calls - answered
    rows = list(counts.values())[-370:]
    return bar_plot(
        {"answered": [row[0] for row in rows], "not answered": [row[1] for row in rows]},
        [clock.tell(row[2], form) for row in rows],
        title=f"Calls by {'day' if by_day else 'hour'}",
        x_label="when they began",
        y_label="calls",
    )


def _histogram(name: str, distribution: Distribution) -> str:
    """Up to the 99th percentile: a few far away must not press all others together."""
    buckets = distribution.buckets()
    least, most = buckets[0][0], max(distribution.quantile(0.99) or 0.0, buckets[0][0])
    # A value is known within two percent: narrower bars would stay empty between full ones.
    bars = [0] * max(1, min(_BARS, int((most - least) / (0.03 * most or 1.0))))
    width = (most - least) / len(bars) or 1.0
    for value, count in buckets:
        bars[max(0, min(len(bars) - 1, int((value - least) / width)))] += count
    labels = [f"{least + (index + 0.5) * width:.2g}" for index in range(len(bars))]
    return bar_plot({name: bars}, labels, title=name, x_label="the last bar holds what is beyond", y_label="how many")


def _shares(counts: Mapping[str, int]) -> list[tuple[str, ...]]:
    total = sum(counts.values())
    return [(name or "(none)", str(count), _percent(count, total)) for name, count in counts.items()]


def _values(spread: Spread) -> tuple[float | None, ...]:
    return spread.mean, spread.least, spread.p50, spread.p90, spread.p95, spread.p99, spread.most


def _timed(title: str, heading: str, rows: Mapping[str, ToolFigures]) -> str:
    cells = [
        (
            name,
            str(each.count),
            str(each.failed),
            *map(_figure, (each.seconds.p50, each.seconds.p95, each.seconds.most)),
        )
        for name, each in rows.items()
    ]
    return _table(title, (heading, ">Count", ">Failed", ">p50 s", ">p95 s", ">Most s"), cells)


def _calls(calls: Sequence[CallSummary], clock: _Clock) -> str:
    arrows = {"inbound": "←", "outbound": "→"}

    def cells(call: CallSummary) -> tuple[str, ...]:
        return (
            clock.tell(call.began_at),
            arrows.get(call.direction, ""),
            call.caller,
            call.callee,
            call.status,
            "" if call.q850_cause is None else f"{call.q850_cause} {q850_name(call.q850_cause)}",
            "" if call.seconds_talked is None else f"{call.seconds_talked:.1f}",
            _figure(call.mos),
            call.call_sid[:12],
        )

    headings = ("Began", "", "From", "To", "Status", "Cause", ">Talked s", ">MOS", "Call")
    return _table(f"The latest {len(calls)} calls", headings, [cells(call) for call in calls])


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Nothing, where there are no rows. A heading that begins with > is for figures."""
    if not rows:
        return ""
    kinds = [' class="n"' if heading.startswith(">") else "" for heading in headings]
    head = "".join(f"<th{kind}>{escape(each.lstrip('>'))}</th>" for kind, each in zip(kinds, headings, strict=True))
    body = "\n".join(
        f"<tr>{''.join(f'<td{kind}>{escape(cell)}</td>' for kind, cell in zip(kinds, row, strict=True))}</tr>"
        for row in rows
    )
    return (
        f'<h2>{escape(title)}</h2>\n<div class="table"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _with_unit(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{_figure(value)} {unit}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""
