"""What importing the package loads, seen from a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Nothing that ``import agentao_trio`` needs: another event loop, the extras, the wings, the command line's libraries.
UNWANTED = [
    "asyncio",
    "hypothesis",
    "msgspec",
    "numpy",
    "soxr",
    "websockets",
    "cyclopts",
    "rich",
    "trustme",
    "prometheus_client",
    "opentelemetry",
    "agentao_trio.realtime",
    "agentao_trio.live",
    "agentao_trio.conformance",
    "agentao_trio.gateway",
    "agentao_trio.testing",
    "agentao_trio.cli",
]


def loaded_by(statement: str) -> set[str]:
    program = f"{statement}\nimport sys\nprint(*sys.modules, sep='\\n')"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    return loaded_by("import agentao_trio")


@pytest.mark.parametrize("module", UNWANTED)
def test_importing_the_package_does_not_load(module: str, loaded: set[str]) -> None:
    assert module not in loaded


@pytest.mark.parametrize("module", ["agentao_trio.gateway", "agentao_trio.cli"])
def test_no_other_event_loop_comes_in_by_the_side_doors(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert "asyncio" not in loaded
    assert "hypothesis" not in loaded
