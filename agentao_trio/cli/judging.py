"""What ``agentao-trio conformance`` does, once the extra that it needs is there."""

from __future__ import annotations

import ipaddress
import json
import secrets
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text
from trio.testing import MockClock

from agentao_trio.cli.conformance import ConformanceOptions
from agentao_trio.cli.durations import rate, seconds
from agentao_trio.cli.naming import named
from agentao_trio.cli.running import (
    INTERRUPTED,
    UsageError,
    about,
    check_apart,
    errors,
    output,
    report_error,
    run,
    until_signalled,
)
from agentao_trio.cli.screen import bare_table, printable
from agentao_trio.conformance import checks as checks
from agentao_trio.conformance import report as reports
from agentao_trio.conformance.limits import Limits
from agentao_trio.conformance.profile import Profile, ProfileError, load_profile
from agentao_trio.conformance.programmes import PROGRAMMES
from agentao_trio.conformance.rehearsal import rehearse
from agentao_trio.conformance.requirements import REQUIREMENTS, Level, Requirement
from agentao_trio.conformance.runner import Options, Progress, RunReport, Target, Verdict, chosen
from agentao_trio.conformance.runner import run as judge
from agentao_trio.conformance.targets import RealTarget, SimulatedTarget
from agentao_trio.errors import ConnectError
from agentao_trio.gateway import faults

__all__ = ["command"]

SIMULATED = "simulated"
UNREACHABLE = 3
_LEVELS = {
    "must": frozenset({Level.MUST}),
    "should": frozenset({Level.MUST, Level.SHOULD}),
    "all": frozenset(Level),
}


def command(where: str, asked: ConformanceOptions) -> int:
    """Do what was asked, and return the exit status."""
    try:
        options = _options(where, asked)
        selected = chosen(options)
        if asked.list or asked.dry_run:
            output.print(_list(selected))
            return 0
        target, profile = _target(where, asked, options.seed)
        _make_room(asked)
        return _judge(where, target, profile, options, asked)
    except (UsageError, ProfileError, ValueError) as error:
        return report_error(UsageError(str(error)))
    except OSError as error:  # what was being written
        return report_error(error)


# -- what was asked -------------------------------------------------------------------------------------------------


def _options(where: str, asked: ConformanceOptions) -> Options:
    simulated = where == SIMULATED
    only = frozenset(filter(None, (each.strip().upper() for each in asked.only.split(","))))
    if asked.only and not only:
        raise UsageError(f"--only: {asked.only!r} names no check and no section; see --list")
    # Also where neither has a meaning: nobody should learn of a mistake only when it costs something.
    rate("--rate", asked.rate)
    if not seconds("--budget", asked.budget):
        raise UsageError(f"--budget: {asked.budget} is no time at all; expected one like 90s, 10m or 1h")
    options = Options(
        only=only,
        levels=_LEVELS[asked.level],
        slow=asked.slow,
        hostile=asked.hostile or simulated,
        allow_dial=asked.allow_dial or simulated,
        seed=secrets.randbelow(2**32) if asked.seed is None else asked.seed,
        side_by_side=asked.concurrency,
        repeat=asked.repeat,
        examples=asked.examples or (4 if simulated else 5),
        rehearse=None if simulated else rehearse,
        waivers=_waivers(asked.waive),
    )
    if asked.replay is not None:
        again = _replay(asked.replay)
        options = attrs.evolve(
            options, only=frozenset({again["check"]}), seed=again["seed"], example=again.get("example")
        )
    return options


def _waivers(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        waivers = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--waive: {path} cannot be read: {error}") from None
    for identity, reason in waivers.items():
        if identity not in REQUIREMENTS or not isinstance(reason, str) or not reason.strip():
            raise UsageError(f'--waive: {identity} = {reason!r} is no waiver; expected CHECK = "the reason"')
    return waivers


def _replay(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["check"] not in REQUIREMENTS or not isinstance(content["seed"], int):
            raise ValueError("it names no check and seed")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"--replay: {path} is no replay file: {error}") from None
    return dict(content)


def _target(where: str, asked: ConformanceOptions, seed: int) -> tuple[Target, Profile | None]:
    if where == SIMULATED:
        if unknown := [name for name in asked.fault if name not in faults.FAULTS]:
            known = ", ".join(sorted(faults.FAULTS))
            raise UsageError(f"--fault: there is no fault {', '.join(unknown)}; there are {known}")
        return SimulatedTarget(loss=asked.loss, seed=seed, faults=asked.fault), None
    if asked.fault or asked.loss:
        raise UsageError("--fault and --loss are for the target 'simulated'")
    profile = load_profile(asked.profile, address=where or None)
    if asked.keylog is not None:
        profile = attrs.evolve(profile, tls=attrs.evolve(profile.tls, keylog=asked.keylog))
    if asked.qlog is not None:
        with about("--qlog"):
            asked.qlog.mkdir(parents=True, exist_ok=True)
        # aioquic's own engine logs everything.
        traced = attrs.evolve(profile.transport, engine="stock", qlog=asked.qlog)
        profile = attrs.evolve(profile, transport=traced)
    if not asked.i_own_this_target and not _is_private(profile.address[0]):
        raise UsageError(f"{profile.address[0]} is not a private address: say --i-own-this-target if it is yours")
    return RealTarget(profile=profile), profile


def _is_private(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".test", ".internal"))


# -- the run --------------------------------------------------------------------------------------------------------


def _judge(where: str, target: Target, profile: Profile | None, options: Options, asked: ConformanceOptions) -> int:
    simulated = profile is None
    limits = (
        Limits(max_calls=0, rate=0.0, concurrency=0)
        if simulated
        else Limits(max_calls=asked.max_calls, rate=rate("--rate", asked.rate), concurrency=asked.concurrency)
    )
    # A wall clock's budget means nothing in virtual time, where a run takes seconds.
    budget = None if simulated else seconds("--budget", asked.budget)
    report: RunReport | None = None
    name = where or (f"quic://{profile.address[0]}:{profile.address[1]}" if profile is not None else "")
    unreachable = False

    async def work() -> None:
        nonlocal report, unreachable
        try:
            with _progress() as show:
                report = await judge(target, options, name=name, limits=limits, budget=budget, progress=show)
        except ConnectError as error:
            unreachable = True
            errors.print(f"error: {printable(str(error))}", soft_wrap=True)

    async def whole() -> int:
        return await until_signalled(work)

    status = run(whole, clock=MockClock(autojump_threshold=0) if simulated else None)
    if unreachable:
        return UNREACHABLE
    if report is None:
        return status or INTERRUPTED
    try:
        _write(report, asked)
    finally:  # a disk that is full takes no files, and leaves the table
        output.print(reports.as_table(report))
    return status or report.exit_status


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("checking", total=None)

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.done, total=progress.total, description=progress.requirement.id)
            result = progress.result
            if result is not None and result.verdict in (Verdict.FAIL, Verdict.ERROR):
                bar.console.print(f"{result.requirement.id} {result.verdict.value}: {printable(result.reason)}")

        yield show


def _make_room(asked: ConformanceOptions) -> None:
    """Raise UsageError for a place that results cannot be written to, while nothing has been lost yet."""
    if asked.out is not None:
        with about("--out"):
            asked.out.mkdir(parents=True, exist_ok=True)
    for option, path in (("--json", asked.json), ("--junit", asked.junit), ("--html", asked.html)):
        if path is not None:
            check_apart(option, path, asked.profile, asked.waive, asked.replay)
            with about(option):
                path.open("a").close()


def _write(report: RunReport, asked: ConformanceOptions) -> None:
    files: dict[Path, str] = {}
    texts: dict[str, Callable[[], str]] = {
        "report.json": lambda: json.dumps(reports.as_json(report), indent=1, ensure_ascii=False) + "\n",
        "junit.xml": lambda: reports.as_junit(report),
        "report.html": lambda: reports.as_html(report),
    }
    for path, name in ((asked.json, "report.json"), (asked.junit, "junit.xml"), (asked.html, "report.html")):
        if path is not None:
            files[path] = texts[name]()
    if asked.out is not None:
        files |= {asked.out / name: text() for name, text in texts.items()}
        for result in report.results:
            if result.findings:
                again = json.dumps(reports.replay_file(result, report), ensure_ascii=False)
                files[asked.out / f"{result.requirement.id}.json"] = again + "\n"
                files[asked.out / f"{result.requirement.id}.trace.jsonl"] = reports.trace_file(result)
    for path, text in files.items():
        with named(path):
            path.write_text(text, encoding="utf-8")


def _list(selected: list[Requirement]) -> Table:
    table = bare_table()
    for heading in ("Check", "Level", "Needs", "Rule"):
        table.add_column(heading)
    for rule in selected:
        programme = PROGRAMMES[rule.id]
        needs = [*sorted(programme.roles), *sorted(programme.capabilities)]
        needs += [f"--{word}" for word in ("slow", "hostile") if getattr(programme, word)]
        table.add_row(rule.id, rule.level.value, ", ".join(needs), Text(rule.title, overflow="fold"))
    return table
