"""Figures of many calls, as tables for people and as names with values for other programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from agentao_trio.analytics import Figures, Spread, ToolFigures
from agentao_trio.cli.running import output
from agentao_trio.cli.screen import bare_table, printable

__all__ = ["add_row", "flat", "new_table", "show_figures"]


def new_table(*headings: str) -> Table:
    """A table; a heading that begins with > is for figures."""
    table = bare_table()
    for heading in headings:
        table.add_column(heading.lstrip(">"), justify="right" if heading.startswith(">") else "left")
    return table


def add_row(table: Table, *cells: str) -> None:
    """A row of cells that may hold what a peer or a file said: folded, and without control characters."""
    table.add_row(*(Text(printable(cell), overflow="fold") for cell in cells))


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every single figure with its path, as in ``mos.p95``."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else None
    if parts is None:
        yield name, value
    else:
        for key, part in parts:
            yield from flat(part, f"{name}.{key}" if name else str(key))


def show_figures(figures: Figures) -> None:
    """Print the figures of a history: what became of the calls, and how long things took."""
    rate = "" if figures.answer_rate is None else f", {100 * figures.answer_rate:.1f} % of those that are over"
    output.print(f"{figures.calls} calls ({figures.inbound} inbound, {figures.outbound} outbound, {figures.open} open)")
    output.print(f"{figures.answered} answered{rate}; {figures.records} records", soft_wrap=True)
    if figures.by_cause:
        table = new_table(">Cause", "Meaning", ">Calls")
        for cause, (name, count) in figures.by_cause.items():
            add_row(table, str(cause), name, str(count))
        output.print(table)
    table = new_table("", ">Count", ">Mean", ">p50", ">p95", ">p99", ">Most")
    for name, spread in figures.spreads().items():
        if spread.count:
            add_row(table, name, str(spread.count), *_cells(spread))
    if table.row_count:
        output.print(table)
    _show_timed("Tool", figures.tools)
    _show_timed("Command", figures.commands)
    for name, count in figures.errors.items():
        output.print(f"error {printable(name)}: {count}", soft_wrap=True)


def _cells(spread: Spread) -> tuple[str, ...]:
    values = (spread.mean, spread.p50, spread.p95, spread.p99, spread.most)
    return tuple("" if value is None else f"{value:.3g}" for value in values)


def _show_timed(heading: str, rows: Any) -> None:
    table = new_table(heading, ">Count", ">Failed", ">p50 s", ">p95 s", ">Most s")
    each: ToolFigures
    for name, each in rows.items():
        times = (each.seconds.p50, each.seconds.p95, each.seconds.most)
        add_row(table, name, str(each.count), str(each.failed), *("" if t is None else f"{t:.3f}" for t in times))
    if table.row_count:
        output.print(table)
