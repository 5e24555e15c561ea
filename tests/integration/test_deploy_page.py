"""The files to copy from the page on deploying: shown there as they are, and made of options that there are."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from agentao_trio.cli import app

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
FILES = sorted((HOWTO / "deploy").iterdir())
UNIT = HOWTO / "deploy" / "agent@.service"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_page_shows_the_file_as_it_is(file: Path) -> None:
    page = (HOWTO / "deploy.md").read_text(encoding="utf-8")
    assert f"\n{file.read_text(encoding='utf-8')}```\n" in page
    assert f"](deploy/{file.name})" in page


def test_the_unit_and_the_image_run_a_command_that_there_is(tmp_path: Path) -> None:
    account = tmp_path / "account.json"
    account.touch()
    unit = UNIT.read_text(encoding="utf-8").replace("\\\n", " ").replace("%d/account.json", str(account))
    settings = dict(line.split("=", 1) for line in (HOWTO / "deploy" / "environment").read_text().splitlines())
    [line] = re.findall(r"^ExecStart=\S+/agentao-trio (.*)$", unit, flags=re.MULTILINE)
    app.parse_args(shlex.split(re.sub(r"\$\{(\w+)\}", lambda name: settings[name[1]], line)), exit_on_error=False)
    [entry] = re.findall(
        r'^ENTRYPOINT \["\S+/agentao-trio", (.*)\]$', (HOWTO / "deploy" / "Containerfile").read_text(), re.M
    )
    app.parse_args([word.strip(' "') for word in entry.split(",")], exit_on_error=False)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here to ask")
def test_systemd_finds_no_fault_with_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "agent@1.service"
    # Whether the program is there is not the unit's fault.
    unit.write_text(
        UNIT.read_text(encoding="utf-8").replace("/opt/agent/bin/agentao-trio", "/bin/true"), encoding="utf-8"
    )
    told = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")
