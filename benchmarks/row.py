"""One line of the result."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Literal

import attrs

from benchmarks.race import Ratio

_COMPARE = {"≥": operator.ge, "≤": operator.le}


@attrs.frozen(kw_only=True)
class Goal:
    """What a figure has to reach."""

    relation: Literal["≥", "≤"]
    value: float
    unit: str = ""

    def is_met_by(self, value: float) -> bool:
        return bool(_COMPARE[self.relation](value, self.value))

    def __str__(self) -> str:
        return f"{self.relation} {self.value:g}{self.unit}"


@attrs.frozen(kw_only=True)
class Row:
    """What was measured, for people (``text``) and for programs (``value``, ``figures``).

    ``value`` is held against ``goal``; ``spread`` is the lower and the upper quartile of its repetitions. A row without
    a goal is there to be compared with. ``missing`` says why there is no value.
    """

    group: str
    name: str
    text: str = ""
    value: float | None = None
    unit: str = ""
    spread: tuple[float, float] | None = None
    goal: Goal | None = None
    missing: str = ""
    figures: Mapping[str, float | str] = {}

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none, or nothing was measured."""
        if self.goal is None or self.value is None:
            return None
        return self.goal.is_met_by(self.value)


def row_of(ratio: Ratio, *, group: str, name: str, goal: Goal | None = None, text: str = "") -> Row:
    """The row of a paired measurement."""
    return Row(
        group=group,
        name=name,
        value=ratio.median,
        unit="×",
        spread=(ratio.low, ratio.high),
        goal=goal,
        text=text,
        figures={"first_ns": ratio.first * 1e9, "second_ns": ratio.second * 1e9, "pairs": ratio.pairs},
    )
