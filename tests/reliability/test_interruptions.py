"""Programs cancelled, and interrupted by Ctrl-C, in the middle of everything they do.

Here each scenario is interrupted at a few of its steps; ``python -m tests.soak`` goes through all of them.
"""

from __future__ import annotations

import pytest

from tests.support.scenarios import SCENARIOS
from tests.support.sweep import Kind, interrupt, sweep

#: Steps per scenario that are tried here: those with much to lose first.
POINTS: dict[Kind, int] = {"cancel": 5, "sigint": 3}


@pytest.mark.parametrize("kind", POINTS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_left_behind(name: str, kind: Kind) -> None:
    _, findings = sweep(SCENARIOS[name], kind, points=POINTS[kind])
    assert findings == []


def test_an_opening_can_be_cancelled_at_every_step() -> None:
    runs, findings = sweep(SCENARIOS["opening"])
    assert findings == []
    assert runs >= 40


@pytest.mark.parametrize("kind", POINTS)
def test_an_interruption_interrupts(kind: Kind) -> None:
    whole, _ = interrupt(SCENARIOS["speaking"], 0, kind)
    cut, _ = interrupt(SCENARIOS["speaking"], 30, kind)
    assert cut < whole / 2
