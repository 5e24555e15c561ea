"""How a command runs: ends in order on a signal, and tells what went wrong without a traceback."""

from __future__ import annotations

import logging
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from agentao_trio.cli.screen import printable
from agentao_trio.cli.streams import errors, output
from agentao_trio.cli.wav import WavError
from agentao_trio.errors import AgentaoError, LocalProtocolError

__all__ = [
    "FAILURE",
    "INTERRUPTED",
    "USAGE",
    "UsageError",
    "about",
    "check_apart",
    "errors",
    "log_to_stderr",
    "output",
    "report_error",
    "run",
    "until_signalled",
]

#: Exit statuses that all commands share.
FAILURE, USAGE, INTERRUPTED = 1, 2, 128 + signal.SIGINT

#: What the library calls its own arguments → what the command line calls them.
SPELLINGS = {
    "as ClientTLS(ca=...)": "with --ca",
    "as ClientTLS(server_name=...)": "with --server-name",
}


class UsageError(Exception):
    """What was asked for cannot be done as it was asked; the message says what would be right."""


@contextmanager
def about(option: str) -> Iterator[None]:
    """What is wrong with the value of an option, or with the file that it names, is told with the option's name."""
    try:
        yield
    except (OSError, UsageError) as error:
        raise UsageError(f"{option}: {_in_words(error)}") from None


def check_apart(option: str, out: Path | None, *inputs: Path | None) -> None:
    """Raise :class:`UsageError` for an option that would have a file written that is read: it would be lost."""
    with about(option):
        for each in inputs:
            if out is not None and each is not None and out.exists() and out.samefile(each):
                raise UsageError(f"{out} is what is read; give the name of another file")


#: What is told in one line and is no mistake of ours. A module that is missing names the extra that it comes with.
MISUSE = (UsageError, WavError, LocalProtocolError, ModuleNotFoundError)
EXPECTED = (*MISUSE, AgentaoError, OSError)


def run(command: Callable[[], Awaitable[int]], *, clock: trio.abc.Clock | None = None) -> int:
    """Run a command under trio and return its exit status. Expected failures become one line on stderr."""
    # A script's shell has what it starts in the background ignore SIGINT. The first one is received all the same, see
    # until_signalled, so the second has to count, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return trio.run(command, clock=clock)
    except (KeyboardInterrupt, *EXPECTED, BaseExceptionGroup) as error:
        causes = list(_leaves(error))
        if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
            return INTERRUPTED
        if not all(isinstance(cause, EXPECTED) for cause in causes):
            raise
        # One failure may have been seen by several tasks; the first one that saw it tells it.
        return report_error(causes[0])


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def report_error(error: BaseException) -> int:
    """Say what went wrong in one line, and return the exit status for it."""
    text = _in_words(error)
    for ours, theirs in SPELLINGS.items():
        text = text.replace(ours, theirs)
    errors.print(f"error: {printable(text)}", soft_wrap=True)
    return USAGE if isinstance(error, MISUSE) else FAILURE


def _in_words(error: BaseException) -> str:
    # What the system says, without its number.
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return str(error)


class _Lines(logging.Handler):
    """Warnings of the package as lines on stderr, made safe, and above a live table instead of across it."""

    def emit(self, record: logging.LogRecord) -> None:
        for line in self.format(record).splitlines():
            errors.print(f"{record.levelname.lower()}: {printable(line)}", soft_wrap=True)


def log_to_stderr() -> None:
    """Show the package's warnings."""
    logging.getLogger("agentao_trio").addHandler(_Lines(logging.WARNING))
    # The QUIC engine warns of what the exception says in better words.
    logging.getLogger("agentao_trio.quic").setLevel(logging.ERROR)


async def until_signalled(work: Callable[[], Awaitable[object]]) -> int:
    """Do ``work``, and cancel it on SIGINT or SIGTERM. Returns 0, or 128 and the number of the signal.

    Cancelled work still hangs up and closes. A second signal does what signals usually do.
    """
    received = 0

    async def listen(task_status: trio.TaskStatus[None]) -> None:
        nonlocal received
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                received = 128 + number
                break
        errors.print("stopping: hanging up and closing", soft_wrap=True)
        scope.cancel()

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        await nursery.start(listen)
        with scope:
            await work()
        nursery.cancel_scope.cancel()
    return received
