"""``agentao-trio agent`` where the extra ``realtime`` is missing, or half of it: one line that says what to do."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Runs the command line with a package that cannot be imported, as if it were not there.
PROGRAM = """
import runpy, sys
sys.modules[sys.argv[1]] = None
sys.argv = ["agentao-trio", *sys.argv[2:]]
runpy.run_module("agentao_trio", run_name="__main__")
"""


@pytest.mark.parametrize("missing", ["msgspec", "websockets"])
@pytest.mark.parametrize("model", [(), ("--model", "wss://model.example/v1")], ids=["simulated", "at a WebSocket"])
def test_it_names_the_extra_before_anything_is_started(missing: str, model: tuple[str, ...]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, missing, "agent", *model], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode != 0
    assert ran.stdout == ""
    [line] = ran.stderr.strip().splitlines()
    assert "the extra 'realtime'" in line
    assert "pip install 'agentao-trio[realtime]'" in line
