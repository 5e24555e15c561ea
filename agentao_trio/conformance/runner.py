"""From checks to verdicts: runs programmes against a target, has their traces judged, and repeats what failed.

Theory of operation
-------------------
One run is one ``async with``-shaped episode in one trio loop. Checks run side by side, each with a kit, connections and
client ids of its own, so that none hears of another's calls. A check that seems to fail is run again: the verdict
*fail* takes the same rule broken in two of three runs. What is never reproduced is *inconclusive*, as is a check whose
precondition did not come about.

Properties draw their examples with Hypothesis before anything begins. A failing one is shrunk in a thread that hands
each shorter one to the loop, unless a short one that :attr:`Options.rehearse` knows breaks the rule as well.
What was drawn is plain JSON, and with the seed it is all that it takes to run the same programme again.

The runner emits what happens (:class:`Progress`) and knows nothing of reports.
"""

from __future__ import annotations

import contextlib
import random
import traceback
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

import attrs
import hypothesis
import trio
from hypothesis import HealthCheck, Phase

from agentao_trio import messages
from agentao_trio.conformance.catalogue import SECTIONS
from agentao_trio.conformance.kit import Kit
from agentao_trio.conformance.limits import LimitReached, Limits
from agentao_trio.conformance.profile import Profile
from agentao_trio.conformance.programmes import PROGRAMMES, Inconclusive, Programme, Unsupported
from agentao_trio.conformance.requirements import REQUIREMENTS, Finding, Judgement, Level, Requirement
from agentao_trio.conformance.trace import Trace, What
from agentao_trio.errors import AgentaoError, ConnectError

__all__ = ["Attempt", "Options", "Place", "Progress", "Result", "RunReport", "Target", "Verdict", "run"]

#: Seconds that one attempt of a check may take, and of one that is slow.
ATTEMPT_SECONDS, SLOW_ATTEMPT_SECONDS = 60.0, 240.0
#: Above this share of lost datagrams nothing is concluded from timing.
BAD_PATH_LOSS = 0.02
#: Seconds that the path is looked at before, and how often it is tried meanwhile.
PREFLIGHT_SECONDS, PREFLIGHT_EVERY = 3.0, 0.1


class Verdict(StrEnum):
    """What is said of one rule."""

    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    WARN = "warn"
    INFO = "info"
    INCONCLUSIVE = "inconclusive"
    UNSUPPORTED = "unsupported"
    SKIPPED = "skipped"
    ERROR = "error"


@attrs.frozen(kw_only=True)
class Options:
    """What to run, and how carefully."""

    #: Ids and sections, such as "EVT" and "RPL-07"; empty is everything.
    only: frozenset[str] = frozenset()
    levels: frozenset[Level] = frozenset(Level)
    slow: bool = False
    hostile: bool = False
    allow_dial: bool = False
    seed: int = 0
    #: Checks that run side by side.
    side_by_side: int = 8
    #: Attempts at a check that seems to fail; two of them have to.
    repeat: int = 3
    #: Examples of a property, and runs that shrinking a failing one may take.
    examples: int = 10
    shrinks: int = 40
    #: From a check and a seed to short examples that might break its rule, to be tried before shrinking. In a thread.
    rehearse: Callable[[str, int], Sequence[Any]] | None = None
    #: Run properties with this example alone, as a replay file has it.
    example: Any = None
    #: Rule id to the reason for which its failure is waived.
    waivers: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Attempt:
    """One run of one programme."""

    trace: Trace = attrs.field(repr=False)
    judgement: Judgement
    #: Why it could not be judged, or the programme's own end.
    unsupported: str = ""
    inconclusive: str = ""
    #: A traceback: the kit's own fault.
    error: str = ""
    #: What was drawn, for a property.
    example: Any = None

    @property
    def failed(self) -> bool:
        """Whether the rule was broken."""
        return bool(self.judgement.findings)


@attrs.frozen(kw_only=True)
class Result:
    """The verdict on one rule, and what it rests on."""

    requirement: Requirement
    verdict: Verdict
    #: In one line, why; empty for a pass.
    reason: str = ""
    attempts: tuple[Attempt, ...] = ()
    #: The shortest example that breaks the rule.
    example: Any = None
    #: What the command line calls the target.
    target: str = "TARGET"
    #: The run's seed, and the one that the programme got.
    run_seed: int = 0
    seed: int = 0
    seconds: float = 0.0
    waived: str = ""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those of the last attempt that failed."""
        return next((tuple(each.judgement.findings) for each in reversed(self.attempts) if each.failed), ())


@attrs.frozen(kw_only=True)
class RunReport:
    """Everything a run came to."""

    target: str
    seed: int
    results: tuple[Result, ...]
    calls: int
    seconds: float
    #: Why the run stopped early; empty where it did not.
    stopped: str = ""
    rtt_ms: float | None = None
    loss: float | None = None

    @property
    def exit_status(self) -> int:
        """0 good, 1 a MUST fails, 4 nothing was concluded, 5 a limit stopped the run, 70 the kit is at fault."""
        must = [each for each in self.results if each.requirement.level is Level.MUST]
        if any(each.verdict is Verdict.FAIL and not each.waived for each in must):
            return 1
        if any(each.verdict is Verdict.ERROR for each in self.results):
            return 70
        if self.stopped:
            return 5
        return 0 if any(each.verdict is Verdict.PASS for each in must) else 4


@attrs.frozen(kw_only=True)
class Progress:
    """A check has begun (``result`` is None) or has ended."""

    requirement: Requirement
    done: int
    total: int
    result: Result | None = None


class Place(Protocol):
    """Where checks are run."""

    @property
    def profile(self) -> Profile:
        """Where the gateway is, and what it has."""

    @property
    def open_socket(self) -> Callable[[], Any]:
        """An async function that opens a datagram socket."""


class Target(Protocol):
    """What is judged. ``words`` is what the command line calls it."""

    @property
    def words(self) -> str: ...

    def arenas(self, wanted: Collection[str]) -> contextlib.AbstractAsyncContextManager[Sequence[Place]]:
        """For the length of a run: the kinds the gateway comes in, the usual one first.

        ``wanted`` are the capabilities that checks ask for; a target has no need to have them.
        """


class _Run:
    def __init__(
        self,
        places: Sequence[Place],
        words: str,
        options: Options,
        limits: Limits,
        progress: Callable[[Progress], None],
        drawn: Mapping[str, Sequence[Any]],
    ) -> None:
        self._places = places
        self._words = words
        self._drawn = drawn
        self._options = options
        self._limits = limits
        self._progress = progress
        self._tag = f"conformance-{random.Random(options.seed).randrange(16**8):08x}"
        self._kits = 0
        self.results: dict[str, Result] = {}
        self.stopped = ""
        self.loss: float | None = None
        self.rtt: float | None = None
        self._done = 0
        #: Undisturbed traces, by the check that made them.
        self._traces: dict[str, list[Trace]] = {}

    # -- the path ---------------------------------------------------------------------------------------------------

    async def look_at_the_path(self) -> None:
        """Ask small questions for three seconds, to know the path's round trip and its losses.

        Raises :class:`ConnectError` where there is no way to the gateway at all. One that answers, and whom the profile
        has no reason to trust, is a matter for checks.
        """
        kit = self._kit("preflight", self._places[0], self._options.seed)
        try:
            async with kit.link(subscribe=False) as link:
                until = trio.current_time() + PREFLIGHT_SECONDS
                while trio.current_time() < until and not link.connection.is_over:
                    began = trio.current_time()
                    await link.ask(messages.GetIncomingCallsRequest(trunk_id=kit.profile.trunk), patience=1.0)
                    await trio.sleep_until(began + PREFLIGHT_EVERY)
                figures = link.connection.statistics()
        except (Inconclusive, AgentaoError, trio.BrokenResourceError) as end:
            error = end.__cause__ if isinstance(end, Inconclusive) else None
            if isinstance(error, ConnectError) and not any(word in str(error) for word in ("certificate", "ALPN")):
                raise error from None
        else:
            self.rtt = figures.rtt
            self.loss = figures.packets_lost / max(1, figures.datagrams_sent)

    # -- all of them ------------------------------------------------------------------------------------------------

    async def everything(self, checks: Sequence[Requirement]) -> None:
        # Those that wait for long begin first, so that nobody waits for them in the end.
        to_do = deque(sorted(checks, key=lambda check: -PROGRAMMES[check.id].waits))

        async def work() -> None:
            while to_do:
                check = to_do.popleft()
                self._progress(Progress(requirement=check, done=self._done, total=len(checks)))
                began = trio.current_time()
                try:
                    result = await self._check(check)
                except LimitReached as limit:
                    self.stopped = self.stopped or str(limit)
                    result = self._result(check, Verdict.SKIPPED, str(limit))
                result = attrs.evolve(result, seconds=trio.current_time() - began)
                self.results[check.id] = result
                self._done += 1
                self._progress(Progress(requirement=check, done=self._done, total=len(checks), result=result))

        async with trio.open_nursery() as nursery:
            for _ in range(self._options.side_by_side):
                nursery.start_soon(work)
        self._look_everywhere(checks)

    def _look_everywhere(self, checks: Sequence[Requirement]) -> None:
        """Rules that hold of every trace are judged on all undisturbed ones: two that break it are a failure."""
        for check in checks:
            result = self.results[check.id]
            if not check.everywhere or result.verdict in (Verdict.FAIL, Verdict.WARN):
                continue
            broken = [
                Attempt(trace=trace, judgement=judgement)
                for other, traces in self._traces.items()
                if other != check.id
                for trace in traces
                if (judgement := check.of(trace)).findings
            ]
            if len(broken) + sum(each.failed for each in result.attempts) >= 2:
                self.results[check.id] = attrs.evolve(
                    result,
                    verdict=_bad(check.level),
                    reason=_first(broken[0]) + " (seen in other checks' traces)",
                    attempts=(*result.attempts, *broken[:3]),
                )

    # -- one check --------------------------------------------------------------------------------------------------

    async def _check(self, check: Requirement) -> Result:
        programme = PROGRAMMES[check.id]
        if reason := self._not_run(programme, self._place(programme).profile):
            return self._result(check, *reason)
        seed = _seed(check, self._options)
        if programme.example is None or self._options.example is not None:
            example = self._options.example if programme.example is not None else None
            attempts = await self._attempts(check, programme, seed, example)
        else:
            attempts, example = await self._property(check, programme, seed)
        return attrs.evolve(self._judged(check, programme, attempts), example=example, seed=seed)

    def _place(self, programme: Programme) -> Place:
        """The kind of the target that has what a programme needs, and wants; the usual one otherwise."""
        needed = programme.capabilities | programme.prefers
        return next((each for each in self._places if needed <= each.profile.capabilities), self._places[0])

    def _kit(self, what: str, place: Place, seed: int) -> Kit:
        self._kits += 1
        return Kit(
            place.profile,
            seed=seed,
            open_socket=place.open_socket,
            limits=self._limits,
            tag=f"{self._tag}-{what}-{self._kits}",
        )

    def _not_run(self, programme: Programme, profile: Profile) -> tuple[Verdict, str] | None:
        options = self._options
        for needed, allowed, option in (
            (programme.slow, options.slow, "--slow"),
            (programme.hostile, options.hostile, "--hostile"),
            (bool(programme.roles), options.allow_dial, "--allow-dial"),
        ):
            if needed and not allowed:
                return Verdict.SKIPPED, f"needs {option}"
        if missing := programme.roles - profile.destinations.keys():
            return Verdict.UNSUPPORTED, f"the profile names no destination for {', '.join(sorted(missing))}"
        if missing := programme.capabilities - profile.capabilities:
            return Verdict.UNSUPPORTED, f"the profile does not claim {', '.join(sorted(missing))}"
        return None

    async def _attempts(
        self, check: Requirement, programme: Programme, seed: int, example: Any = None
    ) -> list[Attempt]:
        """Until it is clear: once, again after anything but a pass, and up to ``repeat`` times after a failure."""
        attempts = [await self._attempt(check, programme, seed, example)]
        while len(attempts) < self._options.repeat:
            latest = attempts[-1]
            failures = sum(each.failed for each in attempts)
            settled = (
                latest.unsupported
                or latest.error
                or failures >= 2
                or (not failures and not latest.inconclusive and not latest.judgement.open_because)
            )
            if settled:
                break
            attempts.append(await self._attempt(check, programme, seed + len(attempts), example))
        return attempts

    async def _property(self, check: Requirement, programme: Programme, seed: int) -> tuple[list[Attempt], Any]:
        attempts: list[Attempt] = []
        for example in self._drawn[check.id]:
            attempts.append(await self._attempt(check, programme, seed, example))
            if attempts[-1].failed:
                break
        else:
            return attempts, None
        short = await self._rehearsed(check, programme, seed, attempts[-1].example)
        attempts += short or await self._shrunk(check, programme, seed, attempts)
        shortest = min((each for each in attempts if each.failed), key=lambda each: len(repr(each.example)))
        again = await self._attempts(check, programme, seed, shortest.example)
        return [shortest, *again], shortest.example

    async def _shrunk(
        self, check: Requirement, programme: Programme, seed: int, known: Sequence[Attempt]
    ) -> list[Attempt]:
        """Attempts with shorter examples than the last known one, which failed."""
        attempts: list[Attempt] = []
        failed = {repr(each.example): each.failed for each in known}

        def try_out(example: Any) -> None:
            if (name := repr(example)) not in failed and len(attempts) < self._options.shrinks:
                attempts.append(trio.from_thread.run(self._attempt, check, programme, seed, example))
                failed[name] = attempts[-1].failed
            assert not failed.get(name)

        def shrink() -> None:
            # That an example broke the rule is in the attempts; a flaky one is no more than that here.
            with contextlib.suppress(AssertionError, hypothesis.errors.HypothesisException):
                _hypothesis(check, self._options, try_out, Phase.generate, Phase.shrink)

        await trio.to_thread.run_sync(shrink, abandon_on_cancel=True)
        return attempts

    async def _rehearsed(self, check: Requirement, programme: Programme, seed: int, longer: Any) -> list[Attempt]:
        """Attempts with what breaks the rule elsewhere and is not longer, up to the first that breaks it here, which is
        the last of them; none where none does."""
        rehearse = self._options.rehearse
        if rehearse is None:
            return []
        for example in await trio.to_thread.run_sync(rehearse, check.id, seed, abandon_on_cancel=True):
            if len(repr(example)) <= len(repr(longer)):
                attempt = await self._attempt(check, programme, seed, example)
                if attempt.failed:
                    return [attempt]
        return []

    async def _attempt(self, check: Requirement, programme: Programme, seed: int, example: Any = None) -> Attempt:
        kit = self._kit(check.id.lower(), self._place(programme), seed)
        how = {"unsupported": "", "inconclusive": "", "error": ""}
        try:
            # The nursery has whatever goes wrong arrive in a group.
            async with trio.open_nursery():
                with trio.move_on_after(SLOW_ATTEMPT_SECONDS if programme.slow else ATTEMPT_SECONDS) as patience:
                    await (programme.run(kit) if programme.example is None else programme.run(kit, example))
            if patience.cancelled_caught:
                how["inconclusive"] = "the programme did not come to its end in time"
        except BaseExceptionGroup as group:
            self._explain(group, how)
        trace, judgement = kit.trace, Judgement()
        if not (programme.disturbs or programme.hostile):
            self._traces.setdefault(check.id, []).append(trace)
        if not (how["unsupported"] or how["error"]):
            try:
                async with trio.open_nursery():
                    judgement = check.of(trace)
            except BaseExceptionGroup as group:
                self._explain(group, how)
        return Attempt(trace=trace, judgement=judgement, example=example, **how)

    def _explain(self, end: BaseException, how: dict[str, str]) -> None:
        """Write down why a programme ended early, or raise what is not for a verdict."""
        leaves = list(_leaves(end))
        for leaf in leaves:
            if isinstance(leaf, LimitReached | trio.Cancelled | KeyboardInterrupt):
                raise leaf
        for leaf in leaves:
            if isinstance(leaf, Unsupported):
                how["unsupported"] = str(leaf)
            elif isinstance(leaf, Inconclusive | AgentaoError | trio.BrokenResourceError | trio.ClosedResourceError):
                how["inconclusive"] = how["inconclusive"] or str(leaf) or type(leaf).__name__
            else:
                how["error"] = "".join(traceback.format_exception(leaf))

    # -- verdicts ---------------------------------------------------------------------------------------------------

    def _judged(self, check: Requirement, programme: Programme, attempts: list[Attempt]) -> Result:
        verdict, reason = self._verdict(check, programme, attempts)
        return self._result(check, verdict, reason, tuple(attempts))

    def _verdict(self, check: Requirement, programme: Programme, attempts: list[Attempt]) -> tuple[Verdict, str]:
        failed = [each for each in attempts if each.failed]
        latest = attempts[-1]
        if any(each.error for each in attempts):
            return Verdict.ERROR, next(each.error for each in attempts if each.error).strip().splitlines()[-1]
        if len(failed) >= min(2, self._options.repeat):
            if programme.timing and self.loss is not None and self.loss > BAD_PATH_LOSS:
                return Verdict.INCONCLUSIVE, f"the path loses {100 * self.loss:.1f} %: too bad to judge timing"
            return _bad(check.level), _first(failed[-1])
        if failed:
            return Verdict.INCONCLUSIVE, f"seen in {len(failed)} of {len(attempts)} runs: {_first(failed[0])}"
        if latest.unsupported:
            return Verdict.UNSUPPORTED, latest.unsupported
        closed = [each for each in attempts if each.inconclusive and _closed_by_gateway(each.trace)]
        if len(closed) >= min(2, self._options.repeat):
            return _bad(check.level), f"the gateway closed the connection: {_closed_by_gateway(closed[-1].trace)}"
        why = latest.inconclusive or latest.judgement.open_because
        if why and not any(each.judgement.judged and not each.inconclusive for each in attempts):
            return Verdict.INCONCLUSIVE, why
        reports = "; ".join(dict.fromkeys(latest.judgement.reports))
        return (Verdict.INFO if check.level is Level.INFO else Verdict.PASS), reports

    def _result(
        self, check: Requirement, verdict: Verdict, reason: str = "", attempts: tuple[Attempt, ...] = ()
    ) -> Result:
        waived = self._options.waivers.get(check.id, "") if verdict in (Verdict.FAIL, Verdict.WARN) else ""
        return Result(
            requirement=check,
            verdict=verdict,
            reason=reason,
            attempts=attempts,
            waived=waived,
            target=self._words,
            run_seed=self._options.seed,
        )


def _seed(check: Requirement, options: Options) -> int:
    """What all that is random in one check comes of."""
    return random.Random(f"{options.seed} {check.id}").randrange(2**32)


def _hypothesis(check: Requirement, options: Options, body: Callable[[Any], None], *phases: Phase) -> None:
    """Have Hypothesis call ``body`` with the check's examples: the same ones for the same seed."""
    example = PROGRAMMES[check.id].example
    assert example is not None
    settings = hypothesis.settings(
        max_examples=options.examples,
        deadline=None,
        database=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        report_multiple_bugs=False,
    )

    @hypothesis.seed(_seed(check, options))
    @settings
    @hypothesis.given(example)
    def one(drawn: Any) -> None:
        body(drawn)

    one()


def _draw(checks: Sequence[Requirement], options: Options) -> dict[str, list[Any]]:
    """The examples of every property among ``checks``."""
    drawn: dict[str, list[Any]] = {check.id: [] for check in checks if PROGRAMMES[check.id].example is not None}
    for check in checks:
        if check.id in drawn:
            _hypothesis(check, options, drawn[check.id].append, Phase.generate)
    return drawn


def _bad(level: Level) -> Verdict:
    return {Level.MUST: Verdict.FAIL, Level.SHOULD: Verdict.WARN, Level.INFO: Verdict.INFO}[level]


def _closed_by_gateway(trace: Trace) -> str:
    """The error with which a connection was closed on which something had been answered; empty where none was."""
    answered = {each.link for _, each in trace.of(What.REPLY) if each.note == "fin"}
    ends = (each for _, each in trace.of(What.CLOSED) if each.code and each.link in answered)
    return next((f"code {each.code} {each.note!r}" for each in ends), "")


def _first(attempt: Attempt) -> str:
    finding = attempt.judgement.findings[0]
    return f"expected {finding.expected}; saw {finding.seen}"


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def chosen(options: Options) -> list[Requirement]:
    """The checks that the options ask for, in the order of the catalogue. Raises ValueError for an unknown name."""
    known = {*REQUIREMENTS, *(each.section for each in REQUIREMENTS.values())}
    if unknown := options.only - known:
        raise ValueError(f"there is no check or section {', '.join(sorted(unknown))}; see --list")
    order = list(SECTIONS)
    return [
        each
        for each in sorted(REQUIREMENTS.values(), key=lambda each: (order.index(each.section), each.id))
        if each.level in options.levels
        and (not options.only or each.id in options.only or each.section in options.only)
        and each.id in PROGRAMMES
    ]


async def run(
    target: Target,
    options: Options,
    *,
    name: str,
    limits: Limits | None = None,
    budget: float | None = None,
    preflight: bool = True,
    progress: Callable[[Progress], None] = lambda _: None,
) -> RunReport:
    """Run the chosen checks against a target and return the verdicts. ``budget`` is in seconds.

    Cancelled, calls are hung up first. Raises ValueError for options that name no check, and ConnectError where nobody
    answers.
    """
    checks = chosen(options)
    limits = limits or Limits()
    began = trio.current_time()
    programmes = [PROGRAMMES[check.id] for check in checks]
    wanted = frozenset[str]().union(*(each.capabilities | each.prefers for each in programmes))
    # Before there is anything whose timing it could disturb.
    drawn = await trio.to_thread.run_sync(_draw, checks, options, abandon_on_cancel=True)
    async with target.arenas(wanted) as places:
        this = _Run(places, target.words, options, limits, progress, drawn)
        if preflight:
            await this.look_at_the_path()
        with trio.move_on_after(budget if budget is not None else float("inf")) as allowed:
            await this.everything(checks)
        if allowed.cancelled_caught:
            this.stopped = f"the budget of {budget:g} s was used up (--budget)"
    return RunReport(
        target=name,
        seed=options.seed,
        results=tuple(this.results[check.id] for check in checks if check.id in this.results),
        calls=limits.calls,
        seconds=trio.current_time() - began,
        stopped=this.stopped,
        loss=this.loss,
        rtt_ms=None if this.rtt is None else 1000 * this.rtt,
    )
