"""What the command line shows: text made safe, lines with a time, and tables of calls, live or final."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import attrs
import trio
from rich import box
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agentao_trio.call import ActiveCall
from agentao_trio.callstate import CallState
from agentao_trio.statistics import CallStatistics

__all__ = ["LIVE", "SUMMARY", "CallRow", "Screen", "bare_table", "call_table", "printable", "state_of"]

#: Seconds between two pictures of the live table, and between two progress lines where there is no terminal.
PICTURE_SECONDS, LINE_SECONDS = 0.25, 2.0


def printable(text: str) -> str:
    """``text`` with everything escaped that could move the cursor, hide or reverse what follows, or not be encoded.

    Numbers, names and error messages come from the far side and are shown on somebody's terminal.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def state_of(call: ActiveCall) -> str:
    """In a word, where a call stands."""
    if call.state is CallState.PENDING:
        return "calling"
    if call.state is CallState.DISCONNECTED:
        return "ended"
    return "on hold" if call.on_hold else "talking"


@attrs.frozen(kw_only=True)
class CallRow:
    """One call at one moment, as a line of a table. ``statistics`` is None before there is a call."""

    to: str
    title: str
    state: str
    seconds: float
    statistics: CallStatistics | None
    check: str = ""

    def figure(self, value: Callable[[CallStatistics], str], *, sent: bool = False, received: bool = False) -> str:
        """One of the statistics as text, or nothing before a packet was ``sent`` or ``received`` for it to be about."""
        figures = self.statistics
        if figures is None or (sent and not figures.packets_sent) or (received and not figures.packets_received):
            return ""
        return value(figures)


#: Heading → what stands below it.
COLUMNS: Mapping[str, Callable[[CallRow], str]] = {
    "To": lambda row: row.to,
    "Far end": lambda row: row.title,
    "State": lambda row: row.state,
    "Ended with": lambda row: row.state,
    "s": lambda row: f"{row.seconds:.1f}",
    "Out": lambda row: row.figure(lambda call: str(call.packets_sent)),
    "In": lambda row: row.figure(lambda call: str(call.packets_received)),
    "Lost": lambda row: row.figure(lambda call: str(call.packets_lost), received=True),
    "Jitter\nms": lambda row: row.figure(lambda call: f"{call.jitter_ms:.1f}", received=True),
    "Late\np99 ms": lambda row: row.figure(lambda call: f"{call.lateness_p99 * 1000:.1f}", sent=True),
    "MOS": lambda row: row.figure(lambda call: f"{call.estimated_mos:.2f}", received=True),
    "Check": lambda row: row.check,
}
WORDS = frozenset({"To", "Far end", "State", "Ended with", "Check"})
#: The columns of the table while calls are going on, and of the one at the end. Both fit 80 characters.
LIVE = ("To", "Far end", "State", "s", "Out", "In", "Lost", "Jitter\nms", "Late\np99 ms", "MOS")
SUMMARY = ("To", "Far end", "Ended with", "s", "Out", "In", "Lost", "MOS", "Check")


def bare_table() -> Table:
    """A table without columns yet, as all commands show them."""
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))


def call_table(rows: Sequence[CallRow], columns: Sequence[str] = LIVE) -> Table:
    """Calls as a table."""
    table = bare_table()
    for heading in columns:
        # Only what "Ended with" and the far end say may be cut short where the terminal is narrow.
        table.add_column(
            heading, justify="left" if heading in WORDS else "right", no_wrap=heading not in {"Far end", "Ended with"}
        )
    for row in rows:
        cells = (printable(COLUMNS[heading](row)) for heading in columns)
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in cells))
    return table


class Screen:
    """Progress for people: a live table where there is a terminal, lines with a time where there is none."""

    def __init__(self, console: Console, *, live: bool = True) -> None:
        self.console = console
        # A dumb terminal cannot draw over what it has drawn.
        self.live: bool = live and console.is_terminal and not console.is_dumb_terminal
        self._began = trio.current_time()

    def note(self, text: str) -> None:
        """Print one line with the seconds since the beginning."""
        self.say(f"{trio.current_time() - self._began:6.2f} s  {text}")

    def step(self, text: str) -> None:
        """Like :meth:`note`, for what the live table shows already where there is one."""
        if not self.live:
            self.note(text)

    def say(self, text: str, *, style: str | None = None) -> None:
        """Print one line. It is made safe, and never cut or wrapped: commands and paths can be copied from it."""
        self.console.print(printable(text), style=style, soft_wrap=True)

    async def watch(self, rows: Callable[[], Sequence[CallRow]], columns: Sequence[str] = LIVE) -> None:
        """Keep showing the calls until cancelled; then nothing of the live table remains."""
        await self.show(lambda: call_table(rows(), columns), lambda: _in_short(rows()))

    async def show(self, picture: Callable[[], RenderableType], in_short: Callable[[], str]) -> None:
        """Keep showing a picture where there is a terminal, the same ``in_short`` where not, until cancelled."""
        while not self.live:
            await trio.sleep(LINE_SECONDS)
            self.note(in_short())
        with _quick_threads(), Live(console=self.console, auto_refresh=False, transient=True) as live:
            while True:
                # Drawn in a thread: a slow terminal, or one that was stopped, must not hold up the audio.
                await trio.to_thread.run_sync(partial(live.update, picture(), refresh=True))
                await trio.sleep(PICTURE_SECONDS)


@contextlib.contextmanager
def _quick_threads() -> Iterator[None]:
    """While a thread draws, the thread of the calls gets its turn within half a millisecond instead of five."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def _in_short(rows: Sequence[CallRow]) -> str:
    # Without the cause in brackets, which a line of progress has no room for.
    counts = Counter(row.state.partition(" (")[0] for row in rows)
    states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    figures = [row.statistics for row in rows if row.statistics is not None]
    sent, received = sum(each.packets_sent for each in figures), sum(each.packets_received for each in figures)
    return f"{states}; packets out {sent}, in {received}, lost {sum(each.packets_lost for each in figures)}"
