"""Line plots: well-formed, honest about scale, and safe to put into a page."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from agentao_trio.plots import bar_plot, line_plot

SVG = "{http://www.w3.org/2000/svg}"


def drawn(series: dict[str, list[tuple[float, float]]], *, log_x: bool = False) -> ElementTree.Element:
    return ElementTree.fromstring(line_plot(series, title="A plot", x_label="calls", y_label="ms", log_x=log_x))


def dots(plot: ElementTree.Element) -> list[tuple[float, float]]:
    return [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in plot.iter(f"{SVG}circle")]


def words(plot: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in plot.iter(f"{SVG}text")]


def test_every_series_has_its_line_its_dots_and_its_name() -> None:
    plot = drawn({"ours": [(0, 1), (1, 2)], "theirs": [(0, 3), (1, 4)]})
    assert len(dots(plot)) == 4
    assert {"A plot", "calls", "ms", "ours", "theirs"} <= set(words(plot))


def test_more_is_further_up_and_to_the_right_and_zero_is_on_the_paper() -> None:
    plot = drawn({"ours": [(0, 10), (1, 20)]})
    (x0, y0), (x1, y1) = dots(plot)
    assert x0 < x1
    assert y0 > y1
    assert "0" in words(plot)


def test_a_logarithmic_axis_puts_doublings_equally_far_apart() -> None:
    (a, _), (b, _), (c, _) = dots(drawn({"ours": [(50, 1), (100, 1), (200, 1)]}, log_x=True))
    assert b - a == pytest.approx(c - b, abs=0.2)


def test_what_is_not_finite_breaks_the_line() -> None:
    text = line_plot({"ours": [(0, 1), (1, 2), (2, math.inf), (3, 1)]}, title="", x_label="", y_label="")
    assert "inf" not in text
    (path,) = [path for path in re.findall(r' d="(M[^"h]*)"', text) if path.count("L")]
    assert path.count("M") == 2


def test_one_point_and_equal_values_are_drawn() -> None:
    assert len(dots(drawn({"ours": [(5, 5)]}))) == 1
    assert len(dots(drawn({"ours": [(1, 0), (2, 0)]}))) == 2


def test_names_are_text_and_no_markup() -> None:
    text = line_plot({"<script>": [(0, 1)]}, title="<b>", x_label="&", y_label='"')
    assert "<script>" not in text
    assert "<b>" not in text


@pytest.mark.parametrize(
    ("series", "log_x"),
    [({}, False), ({"ours": []}, False), ({"ours": [(math.nan, 1)]}, False), ({"a": [(0, 1)]}, True)],
)
def test_what_cannot_be_drawn_is_refused(series: dict[str, list[tuple[float, float]]], log_x: bool) -> None:
    with pytest.raises(ValueError, match="a "):
        line_plot(series, title="", x_label="", y_label="", log_x=log_x)


def bars(series: dict[str, list[float]], labels: list[str]) -> list[dict[str, str]]:
    plot = ElementTree.fromstring(bar_plot(series, labels, title="<Calls>", x_label="hour", y_label="calls"))
    return [dict(rect.attrib) for rect in plot.iter(f"{SVG}rect")]


def test_bars_are_as_high_as_their_values() -> None:
    one, three, none = bars({"calls": [1, 3, 0]}, ["a", "b", "c"])
    assert float(three["height"]) == pytest.approx(3 * float(one["height"]), abs=0.3)
    assert float(none["height"]) == 0
    assert float(one["x"]) < float(three["x"]) < float(none["x"])


def test_bars_of_several_series_stand_on_one_another_and_are_named() -> None:
    lower, upper, *legend = bars({"answered": [2], "not": [1]}, ["a"])
    assert float(upper["y"]) + float(upper["height"]) == pytest.approx(float(lower["y"]), abs=0.1)
    assert {each["fill"] for each in legend} == {lower["fill"], upper["fill"]}


def test_labels_that_do_not_fit_are_left_out() -> None:
    labels = [f"label {number}" for number in range(100)]
    text = bar_plot({"x": [1.0] * 100}, labels, title="t", x_label="x", y_label="y")
    assert 3 < len(re.findall(r">label \d+<", text)) < 12


@pytest.mark.parametrize(
    ("series", "labels"),
    [({}, ["a"]), ({"x": []}, []), ({"x": [1.0]}, ["a", "b"]), ({"x": [-1.0]}, ["a"]), ({"x": [math.nan]}, ["a"])],
)
def test_bars_that_make_no_sense_are_refused(series: dict[str, list[float]], labels: list[str]) -> None:
    with pytest.raises(ValueError, match="bar"):
        bars(series, labels)
