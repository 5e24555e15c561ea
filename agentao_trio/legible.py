"""Other people's text, made fit to be shown: in a log, in an error message, on a terminal.

A gateway may send any string: one that moves the cursor, ends the line and forges the next, runs from right to left, or
goes on for a megabyte. Strings keep their bytes for as long as they are data; what is shown of them goes through
:func:`legible`.
"""

from __future__ import annotations

__all__ = ["legible", "quoted"]


def legible(text: str, limit: int = 200) -> str:
    r"""``text`` on one line: whatever is not a printable character is escaped as in ``\x1b``, and what is longer than
    ``limit`` characters is cut, saying by how much."""
    cut = len(text) - limit
    if cut > 0:
        text = text[:limit]
    if not text.isprintable():
        text = "".join(char if char.isprintable() else _escaped(char) for char in text)
    return f"{text}… ({cut} characters more)" if cut > 0 else text


def _escaped(char: str) -> str:
    # unicode_escape turns surrogates, which stand for bytes that are no UTF-8, into \udcXX; so they stay visible.
    return char.encode("unicode_escape").decode("ascii")


def quoted(text: str, limit: int = 64) -> str:
    """``text`` in quotes, in ASCII, escaped, cut after ``limit`` characters."""
    return ascii(text if len(text) <= limit else text[:limit] + "…")
