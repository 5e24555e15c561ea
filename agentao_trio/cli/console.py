"""The gateway's console: commands typed at a terminal or piped in, obeyed one line at a time.

Standard input is read when it has something, and never made non-blocking: a terminal shares that setting with standard
output and with the shell. Waiting can be cancelled at any time, so that nothing holds up the end of the program.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable

import trio
from rich.table import Table
from rich.text import Text

from agentao_trio.callstate import OrderState
from agentao_trio.cli.callers import Callers, parse_pace
from agentao_trio.cli.running import UsageError
from agentao_trio.cli.screen import Screen, bare_table, printable
from agentao_trio.gateway import Gateway
from agentao_trio.legible import legible, quoted

__all__ = ["Console", "LineReader", "standard_input"]

#: Bytes of one line; more than any command needs.
LONGEST_LINE = 1000
#: Seconds between two looks whether the program has come to the foreground.
BACKGROUND_SECONDS = 0.5

HELP = {
    "call [TRUNK] [from FAR_END]": "have somebody call in",
    "calls": "the calls that are open",
    "hangup CALL": "the far end hangs up; CALL may be cut short",
    "inbound N/minute": "have calls come in by themselves; also N/s",
    "inbound off": "no more of them",
    "numbers": "the far ends, and who answers which number",
    "help": "this",
    "quit": "end the gateway, like Ctrl-C",
}
STATES = {OrderState.CREATED: "ringing", OrderState.ANSWERED: "talking", OrderState.HELD: "on hold"}


def standard_input() -> int | None:
    """The descriptor to read commands from; None where there is nothing that commands could come from."""
    try:
        descriptor = sys.stdin.fileno()
        mode = os.fstat(descriptor).st_mode
    except (AttributeError, OSError, ValueError):  # closed, or something else in its place
        return None
    if os.isatty(descriptor) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode):
        return descriptor
    return None


class LineReader:
    """Lines from a terminal, a pipe or a file. What is longer than :data:`LONGEST_LINE` is cut."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pending = bytearray()
        self._ended = False
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)

    async def line(self) -> str | None:
        """The next line without its end, or None when there are no more. Cancelled, nothing is lost."""
        await trio.lowlevel.checkpoint()
        while (end := self._pending.find(b"\n")) < 0 and not self._ended:
            del self._pending[LONGEST_LINE + 1 :]
            await self._fill()
        if end < 0:
            if not self._pending:
                return None
            end = len(self._pending)
        line = self._pending[:end].decode("utf-8", "replace")
        del self._pending[: end + 1]
        return line

    async def _fill(self) -> None:
        if self._is_file:  # which always has something, and cannot be waited for
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.wait_readable(self._descriptor)
            if _is_in_background(self._descriptor):
                await trio.sleep(BACKGROUND_SECONDS)
                return
        try:
            data = os.read(self._descriptor, 4096)
        except OSError:  # the terminal was closed
            data = b""
        self._ended = not data
        self._pending += data


def _is_in_background(descriptor: int) -> bool:
    """Whether this process was started with "&": reading from its terminal would stop it."""
    try:
        return os.tcgetpgrp(descriptor) != os.getpgrp()
    except OSError:  # no terminal, or one that is not ours to be stopped by
        return False


class Console:
    """Obeys commands for a gateway and its callers, and answers on the screen."""

    def __init__(self, gateway: Gateway, callers: Callers, screen: Screen, far_ends: Callable[[], Table]) -> None:
        self._gateway = gateway
        self._callers = callers
        self._screen = screen
        self._far_ends = far_ends
        self._commands: dict[str, Callable[[list[str]], None]] = {
            "call": self._call,
            "calls": self._calls,
            "hangup": self._hang_up,
            "inbound": self._inbound,
            "numbers": self._numbers,
            "help": self._help,
        }

    async def run(self, descriptor: int) -> None:
        """Obey what is read from ``descriptor``. Returns on ``quit``, and at the end of a terminal's input (Ctrl-D).

        The end of a pipe or of a file is no reason to end: it waits to be cancelled then.
        """
        reader = LineReader(descriptor)
        while (line := await reader.line()) is not None:
            if not self.obey(line):
                return
        if not os.isatty(descriptor):
            await trio.sleep_forever()

    def obey(self, line: str) -> bool:
        """Carry out one line and say what came of it. Returns False for ``quit``."""
        words = line.split()
        if not words:
            return True
        name, *arguments = words
        if name == "quit" and not arguments:
            return False
        try:
            if len(line) > LONGEST_LINE:
                raise UsageError(f"that line is longer than {LONGEST_LINE} characters")
            command = self._commands.get(name)
            if command is None:
                raise UsageError(f"{quoted(name)} is no command; help tells which there are")
            command(arguments)
        except UsageError as error:
            self._screen.say(f"error: {error}")
        return True

    def _call(self, words: list[str]) -> None:
        match words:
            case []:
                trunk, far_end = "", ""
            case ["from"]:
                raise UsageError("from whom? For example: call from tone; numbers tells who there is")
            case ["from", far_end]:
                trunk = ""
            case [trunk]:
                far_end = ""
            case [trunk, "from", far_end]:
                pass
            case _:
                raise UsageError("expected: call [TRUNK] [from FAR_END], for example: call main from tone")
        self._screen.say(self._callers.place(trunk, far_end))

    def _calls(self, words: list[str]) -> None:
        _no_more(words, "calls")
        calls = self._gateway.model.calls
        if not calls:
            self._screen.say("no calls")
            return
        table = bare_table()
        table.add_column("Call", overflow="fold")
        table.add_column("", no_wrap=True)
        table.add_column("Trunk", no_wrap=True, overflow="ellipsis")
        table.add_column("Far end", no_wrap=True)
        table.add_column("State", no_wrap=True)
        table.add_column("s", justify="right", no_wrap=True)
        for call in calls.values():
            state = "waiting" if call.is_waiting else STATES[call.state]
            seconds = max(0.0, time.time() - call.start_ms / 1000)
            cells = (call.call_sid, "in" if call.inbound else "out", call.trunk_id, call.far_end.name, state)
            table.add_row(*(Text(printable(cell)) for cell in cells), f"{seconds:.0f}")
        self._screen.console.print(table)

    def _hang_up(self, words: list[str]) -> None:
        if len(words) != 1:
            raise UsageError("expected: hangup CALL; calls tells which there are")
        calls = self._gateway.model.calls
        found = [sid for sid in calls if sid == words[0]] or [sid for sid in calls if sid.startswith(words[0])]
        if not found:
            raise UsageError(f"there is no open call {quoted(words[0])}; calls tells which there are")
        if len(found) > 1:
            raise UsageError(f"{quoted(words[0])} is the beginning of {len(found)} calls; give a little more of it")
        self._gateway.hang_up(found[0])
        self._screen.say(f"the far end of {legible(found[0])} has hung up")

    def _inbound(self, words: list[str]) -> None:
        if len(words) > 1:
            raise UsageError("expected: inbound N/minute or inbound off")
        if words:
            self._callers.change_pace(None if words[0] == "off" else parse_pace(words[0]))
        self._screen.say(str(self._callers))

    def _numbers(self, words: list[str]) -> None:
        _no_more(words, "numbers")
        self._screen.console.print(self._far_ends())

    def _help(self, words: list[str]) -> None:
        _no_more(words, "help")
        width = max(map(len, HELP))
        for command, what in HELP.items():
            self._screen.say(f"  {command:{width}}  {what}")


def _no_more(words: list[str], command: str) -> None:
    if words:
        raise UsageError(f"{command} stands alone; {quoted(' '.join(words))} is too much")
