"""Failures of files, told with the name of the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["named"]


@contextmanager
def named(path: Path) -> Iterator[None]:
    """A failure to write a file is told with its name, which the system gives only where it cannot be opened."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
