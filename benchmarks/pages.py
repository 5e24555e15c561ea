"""Tables in Markdown pages, between two comments that say which rows belong there::

<!-- measured: codec splitting -->
<!-- end -->
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

__all__ = ["fill", "markdown"]

_PLACE = re.compile(r"<!-- measured: (?P<groups>[a-z ]+) -->\n.*?<!-- end -->", re.DOTALL)


def fill(page: Path, results: dict[str, Any]) -> None:
    """Put ``results``, as ``--json`` writes them, into the places of ``page``; one that gets no rows stays as it is."""

    def table(place: re.Match[str]) -> str:
        groups = place["groups"].split()
        rows = [row for row in results["rows"] if row["group"] in groups]
        if not rows:
            return place[0]
        return f"<!-- measured: {place['groups']} -->\n{markdown(rows, results['machine'])}\n<!-- end -->"

    page.write_text(_PLACE.sub(table, page.read_text(encoding="utf-8")), encoding="utf-8")


def markdown(rows: list[dict[str, Any]], where: dict[str, Any]) -> str:
    """The rows as a table, and under it where they were measured."""
    lines = ["| Figure | Result | Spread | Goal | | Measured |", "|---|--:|--:|--:|---|---|"]
    for row in rows:
        result = row["missing"] or ("" if row["value"] is None else f"{row['value']:.3g}{row['unit']}")
        spread = "" if row["spread"] is None else "{:.3g}–{:.3g}".format(*row["spread"])
        verdict = {True: "met", False: "**not met**", None: ""}[row["met"]]
        cells = [row["name"], result, spread, row["goal"] or "", verdict, row["text"]]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    place = ", ".join(f"{key} {value}" for key, value in where.items() if value)
    return "\n".join([*lines, "", f"Measured: {place}."])
