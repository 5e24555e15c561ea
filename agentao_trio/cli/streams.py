"""Standard output and standard error, whose reader may go away, whose disk may be full, and which may lack letters.

None of this is a reason to end a call, to lose what was found out, or for a traceback. Nothing that is printed raises:
the first failure silences the stream, and all else goes on. Commands that do nothing but tell look at ``quiet``, and
end.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import IO

from rich.console import Console

__all__ = ["Stream", "errors", "output", "plainly", "tolerate"]


class Stream(Console):
    """A console that falls silent where it cannot be written to."""

    #: Whether something is lost that was to be kept. A reader who has gone away wanted no more of it.
    lost: bool = False

    # What rich writes, help and live tables included, it writes as it leaves its own block.
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            super().__exit__(exc_type, exc, traceback)
        except OSError as error:
            self.fall_silent(error)

    def on_broken_pipe(self) -> None:
        """Called by rich, whose own way is to end the program."""
        self.fall_silent(BrokenPipeError())

    def fall_silent(self, error: OSError) -> None:
        """Print nothing from now on, and say why on standard error where somebody would miss it."""
        self.quiet = True
        # What is in Python's own buffer would be tried again at the end of the program.
        with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self.file.fileno())
        if not isinstance(error, BrokenPipeError):
            self.lost = True
            if self is not errors:
                errors.print(f"error: standard output: {error.strerror or error}")


output: Stream = Stream(highlight=False, markup=False, emoji=False)
# A mistake is one line, however narrow the terminal is: it may end up in a log.
errors: Stream = Stream(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


@contextlib.contextmanager
def plainly() -> Iterator[IO[str]]:
    """Standard output for what other programs read. Where it cannot be written to, the block ends, and nothing more."""
    try:
        yield output.file
        output.file.flush()
    except OSError as error:
        output.fall_silent(error)


def tolerate() -> None:
    """Have standard output replace the letters that its encoding lacks, as standard error does anyway."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
