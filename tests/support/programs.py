"""What a program of another process says, until it has said what a test waits for."""

from __future__ import annotations

from typing import IO

__all__ = ["said"]


def said(output: IO[str], word: str) -> list[str]:
    """The lines that came, the last one with ``word``. Fails the test where the program ends without it."""
    lines: list[str] = []
    for line in iter(output.readline, ""):
        lines.append(line)
        if word in line:
            return lines
    raise AssertionError(f"the program ended without {word!r}: {lines[-20:]}")
