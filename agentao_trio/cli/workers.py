"""Several processes of one command: started, watched, started again when they die, and ended together.

One process a core serves more calls than several share one (see the page on performance), so a program that wants
more than one core runs as that many workers, each with a session and a client_id of its own.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence

import trio

from agentao_trio.cli.running import errors

__all__ = ["supervise"]

#: Seconds before a worker that died is started again, doubled for each death in a row, and the most.
PAUSE, LONGEST_PAUSE = 0.5, 30.0
#: A worker that lived this long died for a new reason.
STABLE_SECONDS = 60.0
#: Seconds that a worker has to end in order before it is killed.
PATIENCE = 30.0


async def supervise(workers: int, arguments: Sequence[str]) -> int:
    """Run ``workers`` processes of this command until SIGINT or SIGTERM, and end them. Returns the exit status."""
    received = 0
    async with trio.open_nursery() as nursery:
        for number in range(1, workers + 1):
            nursery.start_soon(_keep_alive, number, _of_one(arguments, number))
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                received = 128 + number
                break
        errors.print(f"stopping {workers} workers", soft_wrap=True)
        nursery.cancel_scope.cancel()
    return received


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


async def _keep_alive(number: int, arguments: list[str]) -> None:
    pause = PAUSE
    while True:
        began = trio.current_time()
        process = await trio.lowlevel.open_process(
            # A process group of its own: Ctrl-C at the terminal reaches the supervisor alone, which tells them.
            [sys.executable, "-m", "agentao_trio", *arguments],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            status = await process.wait()
        finally:
            if process.returncode is None:
                with trio.CancelScope(shield=True):
                    await _end(process)
        if trio.current_time() - began > STABLE_SECONDS:
            pause = PAUSE
        errors.print(f"worker {number} ended with status {status}; starting it again in {pause:g} s", soft_wrap=True)
        await trio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


async def _end(process: trio.Process) -> None:
    process.send_signal(signal.SIGTERM)
    with trio.move_on_after(PATIENCE):
        await process.wait()
        return
    process.kill()
    await process.wait()
