"""What happens along a scale: plots for the eye, and their points as rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from agentao_trio.plots import line_plot
from benchmarks import wan
from benchmarks.contest import ASYNCIO, OURS, STOCK, Contest
from benchmarks.engine import cost_per_frame
from benchmarks.row import Row
from tests.support.measure import talk

__all__ = ["Sweep", "sweeps"]

Points = list[tuple[float, float]]


@attrs.frozen(kw_only=True)
class Sweep:
    """One plot: what is measured for each series, along which scale."""

    name: str
    title: str
    x_label: str
    y_label: str
    log_x: bool = False
    measure: Callable[[], dict[str, Points]]

    def run(self, directory: Path) -> Row:
        """Measure, draw, and say it in one row."""
        series = self.measure()
        plot = line_plot(series, title=self.title, x_label=self.x_label, y_label=self.y_label, log_x=self.log_x)
        file = directory / f"{self.name}.svg"
        file.write_text(plot, encoding="utf-8")
        text = "; ".join(
            f"{name}: " + ", ".join(f"{x:g} → {y:.3g}" for x, y in points) for name, points in series.items()
        )
        figures = {f"{name} at {x:g}": y for name, points in series.items() for x, y in points}
        return Row(group="sweeps", name=self.title, text=f"{file.name}: {text}", figures=figures)


def sweeps(contest: Contest, *, quick: bool) -> Iterator[Sweep]:
    """Every sweep there is."""
    seconds = 0.2 if quick else 1.0
    yield Sweep(
        name="streams",
        title="CPU per sent frame by open streams",
        x_label="streams",
        y_label="µs per frame",
        log_x=True,
        measure=lambda: {
            "ours": [
                (count, cost_per_frame(count, seconds).sender * 1e6)
                for count in ((50, 100) if quick else (50, 100, 200, 400, 800))
            ],
            "stock engine": [
                (count, cost_per_frame(count, 0.2, engine="stock").sender * 1e6)
                for count in ((50, 100) if quick else (50, 100, 200, 400))
            ],
        },
    )
    calls, talked = (3, 1.0) if quick else (20, 4.0)
    yield Sweep(
        name="loss",
        title=f"Echoes within 150 ms by loss ({calls} calls, 40 ms RTT)",
        x_label="% of datagrams lost",
        y_label="% in time",
        measure=lambda: {
            "ours": [
                (100 * loss, 100 * wan.delivered(talk(calls=calls, seconds=talked, loss=loss, seed=1)))
                for loss in ((0.0, 0.01) if quick else (0.0, 0.005, 0.01, 0.02, 0.05))
            ]
        },
    )
    yield Sweep(
        name="rtt",
        title=f"Echo p99 by round-trip time ({calls} calls, 0.5 % loss)",
        x_label="RTT, ms",
        y_label="p99, ms",
        measure=lambda: {
            "ours": [
                (1000 * rtt, talk(calls=calls, seconds=talked, loss=0.005, rtt=rtt, seed=1).quantile_ms(0.99))
                for rtt in ((0.01, 0.04) if quick else (0.01, 0.04, 0.1, 0.2))
            ],
            "the path alone": [(10.0, 10.0), (40.0, 40.0)] if quick else [(x, x) for x in (10.0, 40.0, 100.0, 200.0)],
        },
    )
    scale = (5, 10) if quick else (20, 50, 100, 200, 400, 600)

    def by_calls(client: str, most: int) -> Points:
        reports = [contest.talk(client, calls, 1.0 if quick else 4.0) for calls in scale if calls <= most]
        return [(report.calls, 100 * report.cpu / report.seconds) for report in reports if report.seconds]

    yield Sweep(
        name="calls",
        title="CPU of the client's core by calls",
        x_label="calls",
        y_label="% of one core",
        measure=lambda: {
            "ours": by_calls(OURS, 600),
            "ours on the stock engine": by_calls(STOCK, 200),
            "asyncio client": by_calls(ASYNCIO, 200),
        },
    )
