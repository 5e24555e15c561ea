"""``agentao-trio history``: what happened, out of the file that calls were recorded in."""

from __future__ import annotations

import bisect
import contextlib
import csv
import datetime
import itertools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
import trio
from cyclopts import App, Parameter, validators
from cyclopts.types import ExistingFile
from rich.table import Table

from agentao_trio.analytics import Analysis, Figures
from agentao_trio.causes import q850_name
from agentao_trio.cli.durations import seconds, typed_seconds
from agentao_trio.cli.figures import add_row, flat, new_table, show_figures
from agentao_trio.cli.history_export import write, write_lines, write_parquet
from agentao_trio.cli.naming import named
from agentao_trio.cli.running import FAILURE, UsageError, about, check_apart, output, run, until_signalled
from agentao_trio.cli.screen import printable
from agentao_trio.cli.streams import plainly
from agentao_trio.history import CallFilter, History, open_history
from agentao_trio.history_report import report
from agentao_trio.hub import Hub
from agentao_trio.records import Record, RecordKind
from agentao_trio.replay import Difference, replay_together
from agentao_trio.store import Retention, StoreError, connect, prune
from agentao_trio.summaries import CallSummary

__all__ = ["history_app"]

history_app: App = App(
    name="history",
    help="What happened: calls, their records, figures and reports, from a history file.",
    help_epilogue="""\
**Examples**

- `agentao-trio history list calls.db --since 2h --cause 17`
- `agentao-trio history show calls.db 3f2a`
- `agentao-trio history report calls.db --out report.html`
- `agentao-trio history tail calls.db`

**Exit status:** 0 success; 1 for a failure, and where replay or judge find something wrong; 2 for wrong usage""",
)

#: Seconds between two looks for new records.
TAIL_INTERVAL = 0.25
#: Calls that are shown at most.
MOST = 1_000_000_000


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Which:
    """Which calls: everything that is given has to hold."""

    since: Annotated[str | None, Parameter(show_default=False)] = None
    """Calls that began since then: so long ago (90s, 15m, 2h, 7d), or a time like 2026-11-21 or 2026-11-21T14:30."""
    until: Annotated[str | None, Parameter(show_default=False)] = None
    """Calls that began before that; as for --since."""
    number: Annotated[str | None, Parameter(show_default=False)] = None
    """A part of the caller's or the callee's number or SIP URI."""
    cause: Annotated[int | None, Parameter(show_default=False)] = None
    """The Q.850 cause they ended with, such as 17 for busy."""
    trunk: Annotated[str | None, Parameter(show_default=False)] = None
    """The line they were on."""
    status: Annotated[str | None, Parameter(show_default=False)] = None
    """completed, busy, no-answer, canceled, failed, lost, in-progress …"""

    def filter(self) -> CallFilter:
        """As the reader takes it. Raises UsageError for a time that is none."""
        return CallFilter(
            since=_moment("--since", self.since),
            until=_moment("--until", self.until),
            number=self.number,
            cause=self.cause,
            trunk=self.trunk,
            status=self.status,
        )


def _moment(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    if (ago := typed_seconds(text)) is not None:
        return time.time() - ago
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise UsageError(
            f"{option}: {text!r} is no time; expected one like 2h, 7d, 2026-11-21 or 2026-11-21T14:30"
        ) from None


def _when(at: float | None) -> str:
    if at is None:
        return ""
    return datetime.datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


# -- list and show --------------------------------------------------------------------------------------------------


@history_app.command(name="list")
def list_command(
    file: ExistingFile,
    /,
    *,
    which: Which = Which(),
    limit: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=MOST))] = 50,
    json_lines: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """The calls, the latest first.

    Args:
        file: The history file.
        limit: How many at most.
        json_lines: One JSON object per line instead of a table.
    """

    async def command() -> int:
        with open_history(file) as history:
            calls = list(history.calls(which.filter(), newest_first=True, limit=limit))
        if json_lines:
            _print_lines(attrs.asdict(call) for call in calls)
        elif not calls:
            output.print("no call matches")
        else:
            output.print(_call_table(calls))
        return 0

    return run(command)


def _call_table(calls: Iterable[CallSummary]) -> Table:
    table = new_table("Began", "Call", "", "From", "To", "Status", "Cause", ">s", ">MOS")
    table.padding = (0, 0)
    for call in calls:
        arrow = {"inbound": "←", "outbound": "→"}.get(call.direction, "")
        talked = "" if call.seconds_talked is None else f"{call.seconds_talked:.1f}"
        # Without seconds, so that two telephone numbers fit a line of 80 characters beside the rest.
        cells = (_when(call.began_at)[5:16], call.call_sid[:8], arrow, call.caller, call.callee, call.status)
        add_row(table, *cells, _cause(call), talked, "" if call.mos is None else f"{call.mos:.2f}")
    return table


def _cause(call: CallSummary) -> str:
    return "" if call.q850_cause is None else str(call.q850_cause)


@history_app.command(name="show")
def show_command(
    file: ExistingFile,
    call: str,
    /,
    *,
    kind: Annotated[tuple[RecordKind, ...], Parameter(negative="", show_default=False)] = (),
    json_lines: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """One call: what it came to, and everything that was recorded of it.

    Args:
        file: The history file.
        call: The call's sid, or its beginning.
        kind: Records of this kind only; may be given several times.
        json_lines: One JSON object per line: the records, with the gateway's own bytes.
    """

    async def command() -> int:
        with open_history(file) as history:
            summary = _find(history, call)
            records = list(history.records(call_sid=summary.call_sid, kinds=kind or None))
        if json_lines:
            _print_lines(record.as_json() for record in records)
            return 0
        _show_summary(summary)
        table = new_table(">s", "Kind", "What")
        began = records[0].at if records else 0.0
        for record in records:
            add_row(table, f"{record.at - began:.3f}", record.kind.value, _in_words(record))
        output.print(table)
        return 0

    return run(command)


def _find(history: History, call_sid: str) -> CallSummary:
    summary = history.call(call_sid)
    if summary is None:
        raise UsageError(f"no call, or more than one, has a sid that begins with {call_sid!r}; see history list")
    return summary


def _show_summary(call: CallSummary) -> None:
    cause = "" if call.q850_cause is None else f"{call.q850_cause} ({q850_name(call.q850_cause)})"
    facts = {
        "Call": call.call_sid,
        "Direction": call.direction,
        "From": call.caller,
        "To": call.callee,
        "Trunk": call.trunk_id,
        "Status": call.status,
        "Q.850 cause": cause,
        "Began": _when(call.began_at),
        "Answered": _when(call.answered_at),
        "Ended": _when(call.ended_at),
        "Talked": "" if call.seconds_talked is None else f"{call.seconds_talked:.1f} s",
        "Codec": call.codec,
        "MOS (estimate)": "" if call.mos is None else f"{call.mos:.2f}",
        "Recording": call.recording,
    }
    for name, value in facts.items():
        if value:
            output.print(f"{name + ':':<16}{printable(value)}", soft_wrap=True)
    output.print()


def _in_words(record: Record) -> str:
    """A record on one line."""
    data = record.data
    match record.kind:
        case RecordKind.EVENT:
            event = data.get("event", {})
            verdict = "" if data.get("verdict") == "in_order" else f" ({data.get('verdict')})"
            return f"{event.get('event_type')} {event.get('status', '')}{verdict}".strip()
        case RecordKind.TRANSCRIPT:
            return f"{data.get('role')}: {data.get('text')}{'' if data.get('phase') == 'final' else ' …'}"
        case RecordKind.CALL if data.get("phase") == "over":
            return f"over: {data.get('how')} {data.get('error', '')}".strip()
    return ", ".join(f"{name} {value}" for name, value in data.items() if not isinstance(value, dict | list))


# -- figures --------------------------------------------------------------------------------------------------------


@history_app.command(name="stats")
def stats_command(
    file: ExistingFile,
    /,
    *,
    which: Which = Which(),
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    as_csv: Annotated[bool, Parameter(name="--csv", negative="")] = False,
) -> int:
    """Figures: answer rate, causes, durations, quality, turns, tools, errors.

    Args:
        file: The history file.
        as_json: One JSON object instead of tables.
        as_csv: Lines of a figure's name and its value instead of tables.
    """

    async def command() -> int:
        figures = await trio.to_thread.run_sync(_figures, file, which.filter())
        if as_json:
            _print_lines([attrs.asdict(figures)])
        elif as_csv:
            with plainly() as target:
                csv.writer(target).writerows([("figure", "value"), *flat(attrs.asdict(figures))])
        else:
            show_figures(figures)
        return 0

    return run(command)


def _figures(file: Path, which: CallFilter) -> Figures:
    analysis = Analysis()
    with open_history(file) as history:
        for record in history.records(which=which):
            analysis.feed(record)
    return analysis.figures()


@history_app.command(name="report")
def report_command(
    file: ExistingFile,
    /,
    *,
    out: Path,
    title: str = "Calls",
    latest: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=MOST))] = 200,
    which: Which = Which(),
) -> int:
    """The figures as one HTML page with tables and plots, which needs nothing else to be read.

    Args:
        file: The history file.
        out: File to write.
        title: What stands at its top.
        latest: How many calls to list, the latest ones.
    """

    def make() -> None:
        analysis, only = Analysis(), which.filter()
        with open_history(file) as history:
            for record in history.records(which=only):
                analysis.feed(record)
            calls = list(history.calls(only, newest_first=True, limit=latest))
        drawn = {
            "Time to answer, s": analysis.seconds_to_answer,
            "Talked, s": analysis.seconds_talked,
            "MOS (estimate)": analysis.mos,
            "Jitter, ms": analysis.jitter_ms,
            "Reply after speech, s": analysis.turn_seconds,
        }
        zone = datetime.datetime.now().astimezone().tzinfo
        page = report(analysis.figures(), calls, distributions=drawn, title=title, zone=zone)
        with about("--out"), named(out):
            out.write_text(page, encoding="utf-8")

    async def command() -> int:
        check_apart("--out", out, file)
        await trio.to_thread.run_sync(make)
        output.print(f"wrote {out}", soft_wrap=True)
        return 0

    return run(command)


# -- again, elsewhere, and away -------------------------------------------------------------------------------------


@history_app.command(name="replay")
def replay_command(
    file: ExistingFile,
    call: str | None = None,
    /,
    *,
    which: Which = Which(),
    speed: Annotated[float, Parameter(validator=validators.Number(gte=0, lte=10_000))] = 1.0,
    live: Annotated[int | None, Parameter(show_default=False, validator=validators.Number(gte=0, lte=65_535))] = None,
) -> int:
    """Calls again, at the pace they happened: the stored bytes through the code that live ones pass.

    Exit status 1 where something comes out differently than it was recorded.

    Args:
        file: The history file.
        call: One call: its sid, or its beginning. Otherwise all that match, which without a filter is everything.
        speed: 2 is twice as fast; 0 takes no time at all.
        live: Show it in the browser too, on this port of loopback (0 takes a free one), until Ctrl-C.
    """

    async def command() -> int:
        hub = Hub()
        hub.attach(_Lines(call is None).show)
        differences: list[Difference] = []

        async def work() -> None:
            async with contextlib.AsyncExitStack() as stack:
                history = stack.enter_context(open_history(file))
                sid = None if call is None else _find(history, call).call_sid
                records = history.with_runs(call_sid=sid, which=which.filter(), by_time=True)
                if live is not None:
                    from agentao_trio.live import serve as serve_live

                    page = await stack.enter_async_context(serve_live(hub, port=live))
                    output.print(f"live calls: {page.url}", soft_wrap=True)
                # Nobody reads the lines any more, and there is no page either.
                wanted = itertools.takewhile(lambda _: live is not None or not output.quiet, records)
                told = await replay_together(wanted, hub, speed=speed or None)
                differences.extend(told.differences)
                output.print(f"{told.records} records over {told.seconds:.1f} s", soft_wrap=True)
                if live is not None:
                    await trio.sleep_forever()

        received = await until_signalled(work)
        for difference in differences:
            output.print(f"record {difference.stored.number} comes out differently now", style="bold red")
        return received or (FAILURE if differences else 0)

    return run(command)


class _Lines:
    """Records as lines, with their seconds since the first, and their calls where there are several."""

    def __init__(self, several: bool) -> None:
        self._several = several
        self._began: float | None = None

    def show(self, record: Record) -> None:
        """Print one."""
        self._began = record.at if self._began is None else self._began
        call = f"{record.call_sid[:8]:<8}  " if self._several else ""
        output.print(f"{record.at - self._began:9.3f}  {printable(call)}{_line(record)}", soft_wrap=True)


def _line(record: Record) -> str:
    return printable(f"{record.kind.value:<13}{_in_words(record)}")


@history_app.command(name="judge")
def judge_command(file: ExistingFile, call: str | None = None, /) -> int:
    """Hold what the gateway sent against the rules of the conformance kit that events alone can show.

    What a history does not tell is named, and not judged. Exit status 1 where the gateway broke a rule that is a MUST.
    Needs the extra conformance.

    Args:
        file: The history file.
        call: Only the events of this call: its sid, or its beginning. Otherwise those of each session in turn.
    """

    async def command() -> int:
        from agentao_trio.cli.history_judge import judge, not_told

        runs: dict[int, list[Record]] = {}
        with open_history(file) as history:
            sid = None if call is None else _find(history, call).call_sid
            for number, record in history.with_runs(call_sid=sid, kinds=(RecordKind.EVENT,)):
                runs.setdefault(number, []).append(record)
            for number, record in history.with_runs(kinds=(RecordKind.SESSION,)):
                if number in runs:
                    bisect.insort(runs[number], record, key=lambda each: each.number)
        table, broken = new_table("Rule", "Verdict", "What"), False
        for records in runs.values():
            for each in judge(records):
                if each.verdict == "open":
                    continue
                broken = broken or each.verdict == "fail"
                add_row(table, each.rule.id, each.verdict, each.rule.title)
                for found in each.judgement.findings[:5]:
                    add_row(table, "", "", f"{found.call_sid[:12]}: expected {found.expected}; seen {found.seen}")
        output.print(table)
        left_out: dict[str, list[str]] = {}
        for rule, why in {rule: why for records in runs.values() for rule, why in not_told(records).items()}.items():
            left_out.setdefault(why, []).append(rule)
        for why, rules in left_out.items():
            output.print(f"not judged: {', '.join(rules)}: {why}", soft_wrap=True)
        return FAILURE if broken else 0

    return run(command)


@history_app.command(name="tail")
def tail_command(
    file: ExistingFile,
    /,
    *,
    call: Annotated[str | None, Parameter(show_default=False)] = None,
    json_lines: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Follow what is being recorded, until Ctrl-C.

    Args:
        file: The history file.
        call: Only records of the call with this sid, or with this beginning of one.
        json_lines: One JSON object per line.
    """

    async def work() -> None:
        with open_history(file) as history:
            position = history.position()
            while not output.quiet:  # somebody reads it
                for _, record in history.news(position):
                    if call is not None and not record.call_sid.startswith(call):
                        continue
                    if json_lines:
                        _print_lines([record.as_json()])
                    else:
                        output.print(f"{_when(record.at)}  {record.call_sid[:12]:<12}  {_line(record)}", soft_wrap=True)
                await trio.sleep(TAIL_INTERVAL)

    async def command() -> int:
        await until_signalled(work)
        return 0  # ended as it has to be

    return run(command)


@history_app.command(name="export")
def export_command(
    file: ExistingFile,
    /,
    *,
    out: Path | None = None,
    form: Annotated[Literal["jsonl", "csv", "parquet"], Parameter(name="--format")] = "jsonl",
    what: Literal["records", "calls"] = "records",
    which: Which = Which(),
) -> int:
    """Records or calls for other programs: JSON lines, CSV (calls) or Parquet.

    Args:
        file: The history file.
        out: File to write; standard output where it is left out.
        form: JSON lines and Parquet hold either; CSV holds calls. Parquet needs the extra analysis.
        what: Everything that was recorded, or one line a call.
    """

    async def command() -> int:
        if form == "csv" and what == "records":
            raise UsageError("--format csv holds calls: add --what calls, or use jsonl or parquet")
        if form == "parquet" and out is None:
            raise UsageError("--format parquet needs a file to write to: add --out FILE")
        check_apart("--out", out, file)
        with open_history(file) as history:
            rows: Iterator[dict[str, Any]] = (
                (attrs.asdict(call) for call in history.calls(which.filter()))
                if what == "calls"
                else (record.as_json() for record in history.records(which=which.filter()))
            )
            if form == "parquet":
                assert out is not None
                write_parquet(rows, out, of_calls=what == "calls")
            elif out is None:
                with plainly() as target:
                    write(rows, form, target)
            else:
                with about("--out"), named(out), out.open("w", encoding="utf-8", newline="") as target:
                    write(rows, form, target)
        return 0

    return run(command)


@history_app.command(name="prune")
def prune_command(
    file: ExistingFile,
    /,
    *,
    older_than: Annotated[str | None, Parameter(show_default=False)] = None,
    max_bytes: Annotated[int | None, Parameter(show_default=False, validator=validators.Number(gte=0))] = None,
) -> int:
    """Delete whole calls that are over, the oldest first.

    Args:
        file: The history file.
        older_than: Calls that ended longer ago than this: 12h, 30d.
        max_bytes: Calls until the file's content takes no more than this.
    """

    async def command() -> int:
        if older_than is None and max_bytes is None:
            raise UsageError("nothing to prune by: give --older-than 30d, or --max-bytes 1000000000")
        age = None if older_than is None else seconds("--older-than", older_than)
        if not file.stat().st_size:  # sqlite would make a history of it
            raise StoreError(f"{file} is empty, and not a history file; it was not changed")
        database = connect(file)
        try:
            gone = await trio.to_thread.run_sync(prune, database, Retention(max_age=age, max_bytes=max_bytes))
        finally:
            database.close()
        output.print(f"{gone} calls deleted")
        return 0

    return run(command)


# -- form -----------------------------------------------------------------------------------------------------------


def _print_lines(rows: Iterable[Any]) -> None:
    with plainly() as target:
        write_lines(rows, target)
