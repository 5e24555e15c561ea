"""Several processes of one command: started, watched, started again when they die, and ended together.

One process a core serves more calls than several share one (see the page on performance), so a program that wants
more than one core runs as that many workers, each with a session and a client_id of its own.

Workers end in order when their supervisor tells them to, and also when it is gone without a word: the standard input of
all of them is one pipe whose other end the supervisor holds, and nothing is ever written to it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import trio

from agentao_trio.cli.running import errors
from agentao_trio.services import task_nursery

__all__ = ["supervise", "while_supervised"]

#: Seconds before a worker that died is started again, doubled for each death in a row, and the most.
PAUSE, LONGEST_PAUSE = 0.5, 30.0
#: A worker that lived this long died for a new reason.
STABLE_SECONDS = 60.0
#: Seconds that a worker has to end in order before it is killed.
PATIENCE = 30.0


async def supervise(workers: int, arguments: Sequence[str]) -> int:
    """Run ``workers`` processes of this command until SIGINT or SIGTERM, and end them. Returns the exit status.

    A further signal is passed on, so that it cuts short what they still do; they are waited for all the same.
    """
    received = 0
    running: set[trio.Process] = set()
    reading, writing = os.pipe()
    try:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as ending:
                async with trio.open_nursery() as nursery:
                    for number in range(1, workers + 1):
                        nursery.start_soon(_keep_alive, number, _of_one(arguments, number), reading, running)
                    received = 128 + await anext(signals)
                    errors.print(f"stopping {workers} workers", soft_wrap=True)
                    ending.start_soon(_pass_on, signals, running)
                    nursery.cancel_scope.cancel()
                ending.cancel_scope.cancel()
    finally:
        os.close(reading)
        os.close(writing)
    return received


async def while_supervised(work: Callable[[], Awaitable[object]]) -> None:
    """Do ``work`` in a worker. Once the supervisor is gone, as SIGKILL has it, this process gets SIGTERM.

    Not while ``work`` is being cancelled: then it ends already, and a second signal would cut that short.
    """

    async def notice() -> None:
        await trio.lowlevel.wait_readable(0)  # that is its end
        signal.raise_signal(signal.SIGTERM)

    async with task_nursery() as nursery:
        nursery.start_soon(notice)
        await work()


def _of_one(arguments: Sequence[str], number: int) -> list[str]:
    """The command line of one worker: the same, but one, and with a name of its own."""
    rest, client_id = [], "agent"
    values = iter(arguments)
    for each in values:
        name, equals, value = each.partition("=")
        name = name.replace("_", "-")  # options are taken in both spellings
        if name == "--workers":
            if not equals:
                next(values, None)
        elif name == "--client-id":
            client_id = value if equals else next(values, client_id)
        else:
            rest.append(each)
    return [*rest, "--client-id", f"{client_id}-{number}"]


def _command() -> list[str]:
    """What this program was started with, up to its arguments: workers are to import from where it does."""
    return [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv[1:])]]


async def _keep_alive(number: int, arguments: list[str], lifeline: int, running: set[trio.Process]) -> None:
    pause = PAUSE
    while True:
        began = trio.current_time()
        process = await trio.lowlevel.open_process(
            # A process group of its own: Ctrl-C at the terminal reaches the supervisor alone, which tells them.
            [*_command(), *arguments, "--supervised"],
            stdin=lifeline,
            start_new_session=True,
        )
        running.add(process)
        try:
            status = await process.wait()
        finally:
            if process.returncode is None:
                with trio.CancelScope(shield=True):
                    await _end(process)
            running.remove(process)
        if trio.current_time() - began > STABLE_SECONDS:
            pause = PAUSE
        errors.print(f"worker {number} ended with status {status}; starting it again in {pause:g} s", soft_wrap=True)
        await trio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


async def _pass_on(signals: AsyncIterator[int], running: set[trio.Process]) -> None:
    async for number in signals:
        for process in running:
            process.send_signal(number)


async def _end(process: trio.Process) -> None:
    process.send_signal(signal.SIGTERM)
    with trio.move_on_after(PATIENCE):
        await process.wait()
        return
    process.kill()
    await process.wait()
