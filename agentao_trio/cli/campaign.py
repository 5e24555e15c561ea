"""``agentao-trio campaign``: a file of numbers, called at a pace, with a table of what became of them."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Literal

import attrs
import trio
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agentao_trio.audio import Codec, from_pcm16
from agentao_trio.broadcast import Subscription
from agentao_trio.call import ActiveCall
from agentao_trio.campaign import (
    Campaign,
    CampaignResult,
    CampaignRow,
    Outcome,
    OutcomeLine,
    Progress,
    RetryPolicy,
    RowResult,
    Step,
    read_numbers,
)
from agentao_trio.campaign_plan import counted_lines
from agentao_trio.cli.course import Course
from agentao_trio.cli.durations import typed_seconds
from agentao_trio.cli.naming import named
from agentao_trio.cli.running import FAILURE, UsageError, about, errors
from agentao_trio.cli.screen import Screen, bare_table, printable
from agentao_trio.config import ClientConfig
from agentao_trio.errors import NumbersError
from agentao_trio.session import Session, open_session

__all__ = ["CampaignOptions", "CampaignRun", "check_report", "load_numbers", "retry_policy"]

#: Outcomes that somebody should look into; the others are how telephone calls end.
TROUBLE = frozenset({Outcome.HANDLER_FAILED, Outcome.REJECTED, Outcome.UNKNOWN, Outcome.LOST})


# -- what was asked for -----------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class CampaignOptions:
    """What was asked for. ``audio`` is 16-bit samples at 8 kHz, empty for calls that listen."""

    rows: tuple[CampaignRow, ...]
    gateway: ClientConfig
    trunk: str
    caller: str
    calls_per_second: float
    max_concurrent: int
    retry: RetryPolicy
    audio: bytes
    course: Course


def load_numbers(path: Path, duplicates: Literal["refuse", "skip", "call"]) -> tuple[CampaignRow, ...]:
    """The rows of a file of numbers. Raises :class:`UsageError`; several mistakes are told in a line each before it."""
    try:
        return read_numbers(path.read_bytes(), duplicates=duplicates)
    except NumbersError as error:
        if len(error.problems) == 1:
            raise UsageError(f"{path}: {error}") from None
        for line in str(error).splitlines():
            errors.print(printable(f"{path}: {line}"), soft_wrap=True)
        raise UsageError(f"{path}: {len(error.problems)} mistakes; nobody was called") from None


def retry_policy(causes: str, attempts: int, after: str) -> RetryPolicy:
    """The policy that ``--retry 17,18,19``, ``--attempts 3`` and ``--retry-after 60s,19=10m`` ask for."""
    try:
        numbers = [int(cause) for cause in causes.split(",") if cause.strip()]
    except ValueError:
        raise UsageError(f"--retry: {causes!r} is no list of Q.850 causes, for example 17,18,19") from None
    pause, pauses = 60.0, {}
    for part in after.split(","):
        cause, equals, length = part.strip().rpartition("=")
        seconds = typed_seconds(length if length[-1:].isalpha() else f"{length}s")
        if seconds is None or (equals and not re.fullmatch("[0-9]{1,3}", cause)):
            raise UsageError(f"--retry-after: {part!r} is no pause, for example 90s, 5m or 19=10m")
        if equals:
            pauses[int(cause)] = seconds
        else:
            pause = seconds
    try:
        return RetryPolicy(causes=frozenset(numbers), attempts=attempts, pause=pause, pauses=pauses)
    except ValueError as error:
        raise UsageError(f"--retry: {error}") from None


# -- what became of it ------------------------------------------------------------------------------------------------


REPORT_COLUMNS = ("line", "to", "outcome", "cause", "meaning", "attempts", "call_sid", "answered", "ended", "error")


def check_report(path: Path) -> None:
    """Raise :class:`UsageError` for a name or a place that a report cannot be written to."""
    if path.suffix not in (".csv", ".json"):
        raise UsageError(f"--report: {path} should end in .csv or .json")
    with about("--report"):
        path.open("a").close()


def write_report(path: Path, result: CampaignResult) -> None:
    """Write what became of each number, as CSV or as JSON, by the name of the file."""
    # Spreadsheets take a CSV file for UTF-8 when it begins with the mark of it.
    encoding = "utf-8-sig" if path.suffix == ".csv" else "utf-8"
    with named(path), path.open("w", encoding=encoding, newline="") as file:
        if path.suffix == ".csv":
            writer = csv.writer(file)
            writer.writerow(REPORT_COLUMNS)
            writer.writerows(map(_cells, result.rows))
        else:
            json.dump(_as_json(result), file, indent=2, ensure_ascii=False)
            file.write("\n")


def _cells(result: RowResult) -> tuple[object, ...]:
    last = result.attempts[-1] if result.attempts else None
    return (
        result.row.line,
        result.row.to,
        str(result.outcome),
        result.cause,
        result.meaning,
        len(result.attempts),
        last.call_sid if last else "",
        _rounded(last.answered) if last else None,
        _rounded(last.ended) if last else None,
        result.error,
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _as_json(result: CampaignResult) -> dict[str, object]:
    return {
        "seconds": _rounded(result.seconds),
        "outcomes": [attrs.asdict(line) for line in result.outcomes],
        "numbers": [
            {
                "line": each.row.line,
                "to": each.row.to,
                "data": dict(each.row.data),
                "outcome": each.outcome,
                "attempts": [
                    {
                        **attrs.asdict(attempt),
                        "meaning": attempt.meaning,
                        "began": _rounded(attempt.began),
                        "answered": _rounded(attempt.answered),
                        "ended": _rounded(attempt.ended),
                    }
                    for attempt in each.attempts
                ],
            }
            for each in result.rows
        ],
    }


def outcome_table(lines: tuple[OutcomeLine, ...]) -> Table:
    """The outcomes by Q.850 cause."""
    table = bare_table()
    table.add_column("Numbers", justify="right")
    table.add_column("Outcome", no_wrap=True)
    table.add_column("Cause", justify="right")
    table.add_column("Meaning")
    for line in lines:
        cause = "" if line.cause is None else str(line.cause)
        table.add_row(str(line.numbers), line.outcome.value, cause, Text(printable(line.meaning)))
    return table


class CampaignRun:
    """One campaign: made by :meth:`run`, told by :meth:`report`."""

    def __init__(self, options: CampaignOptions, screen: Screen, report: Path | None) -> None:
        self._options = options
        self._screen = screen
        self._report = report
        self._campaign: Campaign | None = None
        self._counts: Counter[tuple[Outcome, int | None, str]] = Counter()

    async def run(self) -> None:
        """Connect and call everybody. Cancelled, it hangs up and closes."""
        options, note = self._options, self._screen.note
        note(f"connecting to {options.gateway.endpoint}")
        async with open_session(options.gateway.endpoint, **options.gateway.options()) as session:
            self._campaign = campaign = self._plan(session)
            note(
                f"connected; calling {len(options.rows)} numbers, {options.calls_per_second:g} a second, "
                f"at most {options.max_concurrent} at a time"
            )
            async with trio.open_nursery() as watching:
                watching.start_soon(self._screen.show, self._picture, self._in_short)
                async with trio.open_nursery() as nursery:
                    # Room for all that can happen before the reader first runs: every number is queued.
                    nursery.start_soon(self._follow, campaign.progress(bound=2 * len(options.rows) + 1000))
                    await campaign.run()
                watching.cancel_scope.cancel()

    def _plan(self, session: Session) -> Campaign:
        options = self._options
        try:
            return Campaign(
                session,
                options.rows,
                self._talk,
                trunk_id=options.trunk,
                call_from=options.caller,
                calls_per_second=options.calls_per_second,
                max_concurrent=options.max_concurrent,
                answer_within=options.course.timeout or math.inf,
                retry=options.retry,
                codec=Codec.PCMU,
                max_duration_ms=round(options.course.max_duration * 1000),
            )
        except ValueError as error:
            raise UsageError(str(error)) from None

    async def _talk(self, call: ActiveCall, row: CampaignRow) -> None:
        options = self._options
        with trio.move_on_after(options.course.max_duration or math.inf):
            if options.audio:
                await call.send_audio(from_pcm16(options.audio, Codec.PCMU))
                await call.wait_played()
            with trio.move_on_after(options.course.tail if options.audio else math.inf):
                await call.wait_ended()

    async def _follow(self, progress: Subscription[Progress]) -> None:
        async for record in progress:
            number, words = record.row.to, _words(record)
            if record.step is Step.ANSWERED:
                self._screen.step(f"{number}: answered")
            elif record.step is Step.WAITING and record.retry_at is not None:
                self._screen.step(f"{number}: {words}; again in {round(record.retry_at - record.at, 1):g} s")
            elif record.step is Step.FINISHED and record.outcome is not None:
                self._counts[record.outcome, record.cause, record.meaning] += 1
                attempts = f" after {record.attempt} attempts" if record.attempt > 1 else ""
                self._screen.step(f"{number}: {words}{attempts}")

    def _picture(self) -> RenderableType:
        assert self._campaign is not None
        finished = self._campaign.statistics().finished
        return Group(
            Text(self._in_short()),
            ProgressBar(total=len(self._options.rows), completed=finished, width=60),
            outcome_table(counted_lines(self._counts)),
        )

    def _in_short(self) -> str:
        assert self._campaign is not None
        figures = self._campaign.statistics()
        return (
            f"{figures.finished} of {len(self._options.rows)} numbers finished; {figures.calling} being called, "
            f"{figures.waiting} to be called again, {figures.fresh} not called yet"
        )

    def report(self) -> int:
        """Write the report, print the table, and return the exit status."""
        if self._campaign is None:
            return FAILURE
        result = self._campaign.result()
        try:
            if self._report is not None:
                write_report(self._report, result)
        finally:  # a disk that is full takes no file, and leaves the table
            self._tell(result)
        if self._report is not None:
            self._screen.say(f"what became of each number is in {self._report}")
        return FAILURE if any(each.outcome in TROUBLE for each in result.rows) else 0

    def _tell(self, result: CampaignResult) -> None:
        say = self._screen.say
        self._screen.console.print(outcome_table(result.outcomes))
        say(f"{len(result.rows)} numbers, {result.attempts} calls, {result.seconds:.1f} s")
        if not result.complete:
            cut_short = sum(each.outcome is Outcome.INTERRUPTED for each in result.rows)
            say(f"not complete: {len(result.not_called)} numbers were not called, {cut_short} were cut short")


def _words(record: Progress) -> str:
    """The outcome and its reason: ``not answered, 17 User busy``."""
    outcome = record.outcome.value if record.outcome is not None else record.step.value
    reason = record.meaning if record.cause is None else f"{record.cause} {record.meaning}"
    if record.outcome in TROUBLE and record.error:
        reason = record.error
    return f"{outcome}, {reason}" if reason else outcome
