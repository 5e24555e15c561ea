"""Line plots as SVG: what a report needs, and no more. Sans-IO; the text is complete, and stands alone in a file.

Colours follow the reader's choice of light or dark where the viewer passes it on (``prefers-color-scheme``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["line_plot"]

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
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text class="title" x="{_LEFT}" y="20">{escape(title)}</text>',
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text transform="translate(14 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>",
    ]
    for y in up.ticks():
        parts.append(f'<path class="grid" d="M{_LEFT} {up.at(y):.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{up.at(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
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
