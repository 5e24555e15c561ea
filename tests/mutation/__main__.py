"""Would the tests notice? Small faults are put into the code one at a time, and the tests that reach them are run.

    python -m tests.mutation                  a sample of 150 faults for each part; about ten minutes on two cores
    python -m tests.mutation --only resume    one part: codec, order or resume
    python -m tests.mutation --sample 0       all there are

Tells which faults nothing noticed, and exits with 1 where that is more than one in five of any part. How it works and
what is known of the survivors: README.md beside this file.
"""

# ruff: noqa: T201 - printing is what it is for
from __future__ import annotations

import argparse
import ast
import importlib
import importlib.machinery
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import attrs
import coverage
import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.mutation.mutants import Mutant, mutants_of

ROOT = Path(__file__).parents[2]
LOWEST_SCORE = 0.8
#: Seconds that tests may take beyond what they need without a fault: of the processor, and of the clock.
SPARE_CPU, SPARE_CLOCK = 10.0, 40.0
#: What ends a process that takes longer.
LIMITS = {signal.SIGPROF, signal.SIGALRM}


@attrs.frozen
class Part:
    """Modules, in each the definitions that count (None: all), and the tests that are asked."""

    modules: dict[str, Collection[str] | None]
    tests: list[str]


PARTS = {
    "codec": Part(
        {
            "wire": None,
            "envelope": None,
            "shapes": None,
            "audio_frames": None,
            "messages": {"_fields", "_kind", "_layout", "_MAX_ENVELOPE", "encode", "decode", "decode_counted"}
            | {"_layout_of", "_BY_NUMBER", "method_of", "_as_tuple", "_without_token"},
        },
        [f"unit/test_{name}.py" for name in ("wire", "shapes", "messages")]
        + [f"property/test_{name}.py" for name in ("wire", "messages", "audio_frames")]
        + [f"golden/test_{name}.py" for name in ("vectors", "streams")],
    ),
    "order": Part(
        {"callstate": None, "events": None},
        [
            *(f"unit/test_{name}.py" for name in ("callstate", "events")),
            *("property/test_ingest.py", "property/test_replay.py", "stateful/test_call_order.py"),
        ],
    ),
    "resume": Part(
        {
            "link": None,
            "session": {"_request", "_connection_came", "_connection_went", "_hang_up_soon"},
            "unowned": None,
            "routing": {"ASK_SECONDS", "HANG_UP_AGAIN", "adopt", "rename", "forget", "disown", "lose_silent_calls"}
            | {"_shows_life", "_disown", "may_live", "_route_event", "_deliver", "_keep_stray"},
        },
        [f"unit/test_{name}.py" for name in ("link", "routing")]
        + [f"reliability/test_{name}.py" for name in ("resume", "endings")]
        + [f"integration/test_{name}.py" for name in ("session", "inbound_and_commands")],
    ),
}


class _Plugin:
    """Chooses among the tests that pytest found, and tells how long each took and which lines it reached."""

    def __init__(
        self, wanted: list[str], known: Collection[str] = (), measure: coverage.Coverage | None = None
    ) -> None:
        self.seconds: dict[str, float] = {}
        self._rank = {name: rank for rank, name in enumerate(wanted)}
        self._known = known
        self._measure = measure

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        # A test that is new goes by another name because of the fault.
        items[:] = [item for item in items if item.nodeid in self._rank or item.nodeid not in self._known]
        items.sort(key=lambda item: self._rank.get(item.nodeid, len(self._rank)))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        if self._measure is not None:
            self._measure.switch_context(item.nodeid)
        begun = time.process_time()
        result = yield
        self.seconds[item.nodeid] = time.process_time() - begun
        return result


def _run_tests(files: Collection[str], plugin: _Plugin) -> int:
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile=mutation"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # see _preload
    return int(pytest.main([*options, *sorted(files)], plugins=[plugin]))


def _in_child(work: Callable[[], int], *, quiet: bool) -> int:
    """Fork, and do the work there; the exit code is what it returns. Returns the child's process id."""
    if (child := os.fork()) != 0:
        return child
    code = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2) if quiet else (0,):
            os.dup2(null, descriptor)
        code = work()
    finally:  # whatever was raised: something noticed
        os._exit(code)


def _measured(part: Part) -> tuple[dict[str, float], dict[str, dict[int, list[str]]]]:
    """How long each test takes, and which tests reach a line, by module; "" is whoever imports it."""
    files = [str(ROOT / "tests" / name) for name in part.tests]
    reading, writing = os.pipe()

    def work() -> int:
        paths = {module: str(_path(module)) for module in part.modules}
        measure = coverage.Coverage(data_file=None, config_file=False, include=list(paths.values()))
        measure.start()
        plugin = _Plugin([], measure=measure)
        code = _run_tests(files, plugin)
        measure.stop()
        data = measure.get_data()
        lines = {module: data.contexts_by_lineno(path) for module, path in paths.items()}
        with os.fdopen(writing, "w") as pipe:
            json.dump([plugin.seconds, lines], pipe)
        return code

    child = _in_child(work, quiet=False)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit("the tests have to pass before they can be tested")
    seconds, lines = json.loads(text)
    return seconds, {
        module: {int(line): names for line, names in contexts.items()} for module, contexts in lines.items()
    }


def _path(module: str) -> Path:
    return ROOT / "agentao_trio" / f"{module}.py"


def _try(mutant: Mutant, tree: ast.Module, tests: list[str], seconds: dict[str, float]) -> int:
    """Begin to run the tests with the fault in place, in a process of its own. It ends with 0 where none notices."""
    module = f"agentao_trio.{mutant.path.stem}"

    def work() -> int:
        usual = sum(seconds[test] for test in tests)
        signal.setitimer(signal.ITIMER_PROF, 5 * usual + SPARE_CPU)  # either ends the process, by signal
        signal.setitimer(signal.ITIMER_REAL, 5 * usual + SPARE_CLOCK)
        mutant.apply()
        code = compile(ast.fix_missing_locations(tree), str(mutant.path), "exec")
        original = importlib.machinery.SourceFileLoader.get_code

        def get_code(loader: Any, fullname: str) -> Any:
            return code if fullname == module else original(loader, fullname)

        importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]
        importlib.import_module(module)
        return _run_tests({str(ROOT / name.partition("::")[0]) for name in tests}, _Plugin(tests, seconds))

    return _in_child(work, quiet=True)


def _preload() -> None:
    """Import once what every child needs and no fault touches."""
    for name in ("agentao_trio.gateway", "agentao_trio.testing.memory_network", "trustme", "hypothesis.stateful"):
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "agentao_trio"]:
        del sys.modules[name]


def _judge(name: str, skip: int, sample: int, seed: int, jobs: int) -> tuple[Counter[str], int]:
    """Try a part's mutants; how each kind of outcome came, and how many mutants there are at all."""
    part = PARTS[name]
    seconds, reached = _measured(part)
    everything: list[tuple[Mutant, ast.Module]] = []
    for module, only in part.modules.items():
        tree = ast.parse(_path(module).read_text(encoding="utf-8"))
        everything += [(mutant, tree) for mutant in mutants_of(_path(module), tree, only)]
    random.Random(seed).shuffle(everything)
    chosen = everything[skip : skip + sample if sample else None]
    print(f"{name}: {len(chosen)} of {len(everything)} faults, {len(seconds)} tests", flush=True)
    outcomes: Counter[str] = Counter()
    running: dict[int, Mutant] = {}

    def wait_for_one() -> None:
        child, status = os.wait()
        mutant, code = running.pop(child), os.waitstatus_to_exitcode(status)
        if code in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED):
            raise SystemExit(f"{mutant}: pytest ended with {code}")
        told(mutant, "survived" if code == 0 else "timed out" if -code in LIMITS else "killed")

    def told(mutant: Mutant, outcome: str) -> None:
        outcomes[outcome] += 1
        print(f"{sum(outcomes.values()):5} {outcome:10} {mutant}", flush=True)

    for mutant, tree in chosen:
        lines = reached[mutant.path.stem]
        names = {test for line in mutant.lines for test in lines.get(line, ())}
        tests = sorted(seconds if "" in names else names, key=lambda test: (round(seconds[test], 2), test))
        if not tests:
            told(mutant, "unreached")
            continue
        if len(running) == jobs:
            wait_for_one()
        running[_try(mutant, tree, tests, seconds)] = mutant
    while running:
        wait_for_one()
    return outcomes, len(everything)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description="Put faults in; see who notices.")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--sample", type=int, default=150, help="faults of each part, 0 for all (default: 150)")
    parser.add_argument("--skip", type=int, default=0, help="faults that an earlier run has tried (default: 0)")
    parser.add_argument("--seed", type=int, default=1, help="chooses the sample (default: 1)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (default: 2)")
    options = parser.parse_args()
    os.chdir(ROOT)
    settings.register_profile(
        "mutation",
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=20,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    _preload()
    rows, scores = [], []
    for name in [options.only] if options.only else PARTS:
        outcomes, existing = _judge(name, options.skip, options.sample, options.seed, options.jobs)
        tried, noticed = sum(outcomes.values()), outcomes["killed"] + outcomes["timed out"]
        scores.append(noticed / tried)
        rows.append(
            f"| {name} | {existing} | {tried} | {outcomes['killed']} | {outcomes['timed out']} | "
            f"{outcomes['survived']} | {outcomes['unreached']} | {noticed / tried:.0%} |"
        )
    print("\n| Part | Faults | Tried | Killed | Timed out | Survived | Unreached | Score |")
    print("\n".join(["|---" * 8 + "|", *rows]))
    return 0 if min(scores) >= LOWEST_SCORE else 1


if __name__ == "__main__":
    sys.exit(main())
