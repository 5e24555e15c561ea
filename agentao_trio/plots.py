"""Line and bar plots as SVG: what a report needs, and no more. Sans-IO; the text stands alone in a file.

Colours follow the reader's choice of light or dark where the viewer passes it on (``prefers-color-scheme``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["bar_plot", "line_plot"]

_WIDTH, _HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 40, 48
#: Told apart without red and green, and in print by their order: Okabe and Ito's set.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")

_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.title{font-size:14px;font-weight:600}"
    ".grid{stroke:#8884;stroke-width:1}.line{fill:none;stroke-width:2}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}}"
)


def line_plot(
    series: Mapping[str, Sequence[tuple[float, float]]], *, title: str, x_label: str, y_label: str, log_x: bool = False
) -> str:
    """An SVG document with one line for each of ``series``, a name and its (x, y) points in order.

    Points that are not finite break their line. The y axis begins at zero unless something is below it. ``log_x`` puts
    x on a logarithmic scale. Raises ValueError for no points at all, and for an x that a logarithm cannot take.
    """
    finite = [point for points in series.values() for point in points if all(map(math.isfinite, point))]
    if not finite:
        raise ValueError("a plot needs at least one point")
    if log_x and min(x for x, _ in finite) <= 0:
        raise ValueError("a logarithmic axis takes nothing from zero downwards")
    across = _Axis([_log(x, log_x) for x, _ in finite], _LEFT, _WIDTH - _RIGHT)
    up = _Axis([*(y for _, y in finite), 0.0], _HEIGHT - _BOTTOM, _TOP)
    parts = _paper(title, x_label, y_label)
    parts += _rungs(up)
    ticks = [(x, _log(x, log_x)) for x in sorted({x for x, _ in finite})] if log_x else [(x, x) for x in across.ticks()]
    for value, x in ticks:
        where = across.at(x)
        parts.append(f'<path class="grid" d="M{where:.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text x="{where:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{value:g}</text>')
    for index, (name, points) in enumerate(series.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        path, pen = "", "M"
        for x, y in points:
            if not (math.isfinite(x) and math.isfinite(y)):
                pen = "M"
                continue
            where, height = across.at(_log(x, log_x)), up.at(y)
            path += f"{pen}{where:.1f} {height:.1f}"
            pen = "L"
            parts.append(f'<circle cx="{where:.1f}" cy="{height:.1f}" r="3" fill="{colour}"/>')
        parts.append(f'<path class="line" stroke="{colour}" d="{path}"/>')
        line = _TOP + 6 + 16 * index
        parts.append(f'<path class="line" stroke="{colour}" d="M{_LEFT + 10} {line}h18"/>')
        parts.append(f'<text x="{_LEFT + 34}" y="{line + 4}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def bar_plot(
    series: Mapping[str, Sequence[float]], labels: Sequence[str], *, title: str, x_label: str, y_label: str
) -> str:
    """An SVG document with a bar for each of ``labels``, from zero up: the values of all ``series`` above one another.

    Where there are more labels than fit, some are left out. Raises ValueError for no bars, for series of another length
    than the labels, and for values that are negative or not finite.
    """
    if not labels or not series or any(len(values) != len(labels) for values in series.values()):
        raise ValueError("a plot needs at least one bar, and a value of each series for each of them")
    if not all(math.isfinite(value) and value >= 0 for values in series.values() for value in values):
        raise ValueError("bars begin at zero and go up: their values are finite and not negative")
    up = _Axis([0.0, *(sum(stack) for stack in zip(*series.values(), strict=True))], _HEIGHT - _BOTTOM, _TOP)
    step = (_WIDTH - _RIGHT - _LEFT) / len(labels)
    parts = _paper(title, x_label, y_label)
    parts += _rungs(up)
    every = math.ceil(len(labels) * max(7 * max(map(len, labels)) + 8, 1) / (_WIDTH - _RIGHT - _LEFT))
    for index, label in enumerate(labels):
        left, below = _LEFT + index * step, 0.0
        for number, values in enumerate(series.values()):
            top, bottom = up.at(below + values[index]), up.at(below)
            below += values[index]
            parts.append(
                f'<rect x="{left + 0.1 * step:.1f}" y="{top:.1f}" width="{0.8 * step:.1f}" height="{bottom - top:.1f}" '
                f'fill="{_COLOURS[number % len(_COLOURS)]}"/>'
            )
        if index % every == 0:
            where = f'x="{left + step / 2:.1f}" y="{_HEIGHT - _BOTTOM + 16}"'
            parts.append(f'<text {where} text-anchor="middle">{escape(label)}</text>')
    if len(series) > 1:
        right = _WIDTH - _RIGHT
        for number, name in reversed(list(enumerate(series))):
            right -= 7 * len(name) + 24
            colour = _COLOURS[number % len(_COLOURS)]
            parts.append(f'<rect x="{right}" y="11" width="10" height="10" fill="{colour}"/>')
            parts.append(f'<text x="{right + 14}" y="20">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _paper(title: str, x_label: str, y_label: str) -> list[str]:
    """The beginning of a plot, and what is written around it."""
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text class="title" x="{_LEFT}" y="20">{escape(title)}</text>',
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text transform="translate(14 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>",
    ]


def _rungs(up: _Axis) -> list[str]:
    """The lines across, with their values."""
    return [
        f'<path class="grid" d="M{_LEFT} {up.at(y):.1f}H{_WIDTH - _RIGHT}"/>'
        f'<text x="{_LEFT - 6}" y="{up.at(y) + 4:.1f}" text-anchor="end">{y:g}</text>'
        for y in up.ticks()
    ]


def _log(x: float, log_x: bool) -> float:
    return math.log10(x) if log_x else x


class _Axis:
    """From values to places on the paper."""

    def __init__(self, values: list[float], first: float, last: float) -> None:
        self._low, self._high = min(values), max(values)
        if self._low == self._high:
            self._high = self._low + 1.0
        self._first, self._last = first, last

    def at(self, value: float) -> float:
        return self._first + (self._last - self._first) * (value - self._low) / (self._high - self._low)

    def ticks(self) -> list[float]:
        """About five round numbers within the axis."""
        rough = (self._high - self._low) / 5
        magnitude = 10.0 ** math.floor(math.log10(rough))
        step = next(round_one * magnitude for round_one in (1, 2, 5, 10) if round_one * magnitude >= rough)
        first, last = math.ceil(self._low / step), math.floor(self._high / step)
        return [number * step for number in range(first, last + 1)]
