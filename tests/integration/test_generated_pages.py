"""Pages that are written from the code are what the code says now."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from agentao_trio.records import RecordKind

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_the_checks_is_current() -> None:
    generator = runpy.run_path(str(DOCS / "generate_checks.py"))
    assert generator["PAGE"].read_text(encoding="utf-8") == generator["page"](), (
        "run docs/generate_checks.py and commit the page"
    )


def test_the_drawing_of_the_order_of_events_is_current() -> None:
    generator = runpy.run_path(str(DOCS / "generate_state_diagrams.py"))
    assert generator["PICTURE"].read_text(encoding="utf-8") == generator["drawing"](), (
        "run docs/generate_state_diagrams.py and commit the drawing"
    )


@pytest.mark.parametrize("name", ["errors.md", "metrics.md"])
def test_the_pages_of_the_errors_and_of_the_metrics_are_current(name: str) -> None:
    page = DOCS / "reference" / name
    generator = runpy.run_path(str(DOCS / "generate_reference.py"))
    assert page.read_text(encoding="utf-8") == generator["PAGES"][page](), (
        "run docs/generate_reference.py and commit the page"
    )


@pytest.mark.parametrize("kind", RecordKind)
def test_every_kind_of_record_is_described(kind: RecordKind) -> None:
    assert f"\n## {kind.value}\n" in (DOCS / "reference" / "records.md").read_text(encoding="utf-8")
