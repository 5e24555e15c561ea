"""Bytes for everything that decodes, guided by the coverage they reach, with atheris.

    python -m tests.soak atheris --minutes 60

Optional: atheris is not among what the tests need. It runs in a process of its own, because what it watches has to be
imported under its eyes; the corpus and the culprit, if there is one, are kept in the directory that ``--corpus`` names.
"""

# ruff: noqa: T201 - printing is what it is for
from __future__ import annotations

import argparse
import gc
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FunctionType

__all__ = ["main"]

#: Seconds for one input, after which it is taken for a hang; megabytes that the process may take.
TIMEOUT, MEGABYTES = 5, 1024


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak atheris", description="Coverage-guided fuzzing.")
    parser.add_argument("--minutes", type=float, default=60, help="how long (default: an hour)")
    parser.add_argument("--corpus", type=Path, help="where inputs are kept (default: nowhere)")
    given = parser.parse_args(arguments)
    if importlib.util.find_spec("atheris") is None:
        sys.exit("the coverage-guided fuzzer needs atheris: pip install atheris")
    with tempfile.TemporaryDirectory() as temporary:
        return _watch(given.corpus or Path(temporary), given.minutes)


def _watch(corpus: Path, minutes: float) -> int:
    from tests.soak.fuzz import valid_bytes

    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(valid_bytes()):
        (corpus / f"valid-{number:03}").write_bytes(data)
    command = [sys.executable, "-m", "tests.soak.guided", f"-max_total_time={round(minutes * 60)}"]
    command += [f"-timeout={TIMEOUT}", f"-rss_limit_mb={MEGABYTES}", "-print_final_stats=1"]
    command += [f"-artifact_prefix={corpus}/", str(corpus)]
    runs, covered = "no", "no"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as fuzzer:
        assert fuzzer.stderr is not None
        try:
            for line in fuzzer.stderr:
                if counted := re.search(r"cov: (\d+)", line):
                    covered = counted[1]
                if counted := re.match(r"Done (\d+) runs|stat::number_of_executed_units:\s*(\d+)", line):
                    runs = f"{int(counted[1] or counted[2]):,}"
                if "NEW" not in line and "REDUCE" not in line:
                    print(line, end="", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            fuzzer.wait()
            return 130
    found = "no crash" if fuzzer.returncode == 0 else f"ended with status {fuzzer.returncode}"
    print(f"{runs} coverage-guided inputs in {minutes:g} minutes, {covered} points of the code reached: {found}")
    return int(fuzzer.returncode != 0)


def _fuzz() -> None:
    import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]

    with atheris.instrument_imports(include=["agentao_trio"]):
        from tests.soak.fuzz import decode_as_everything
    # The codec generates its readers and writers, which no import brings.
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType) and thing.__code__.co_filename.startswith("<shapes"):
            atheris.instrument_func(thing)
    atheris.Setup(sys.argv, decode_as_everything)
    atheris.Fuzz()


if __name__ == "__main__":
    _fuzz()
