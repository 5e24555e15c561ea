"""What holds for every test: nothing depends on the day, on how fast a machine is, or on what else it has to do.

``--hypothesis-profile=search`` has other examples and another order of tasks every time, and remembers examples that
failed.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, settings
from trio.testing import MockClock

# What a shell, a terminal or a CI service says of widths and colours; tests say themselves what they want of them.
for name in ("LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "PYTHON_COLORS"):
    os.environ.pop(name, None)
os.environ["COLUMNS"] = "80"

# No example is judged by the clock.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("repeatable", settings.get_profile("search"), derandomize=True, database=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _dice_of_its_own(request: pytest.FixtureRequest) -> None:
    """Begin every test with dice that only its name determines: trio's, which order tasks, and everybody's."""
    if settings.get_current_profile_name() != "search":
        trio._core._run._r.seed(request.node.nodeid)
        random.seed(request.node.nodeid)


@pytest.fixture(autouse=True, scope="session")
def _virtual_time_waits_for_threads() -> Iterator[None]:
    """Let virtual time stand still while a thread works: a millisecond of it would else be minutes.

    A thread that waits for a task to be done with something does not count: the task may be asleep.
    """
    asking: set[int] = set()
    jump, ask = MockClock._autojump, trio.from_thread.run

    def jump_or_wait(clock: MockClock) -> None:
        if trio.to_thread.current_default_thread_limiter().borrowed_tokens > len(asking):
            time.sleep(0.0002)
        else:
            jump(clock)

    def ask_and_tell(*arguments: Any, **options: Any) -> Any:
        asking.add(threading.get_ident())
        try:
            return ask(*arguments, **options)
        finally:
            asking.discard(threading.get_ident())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MockClock, "_autojump", jump_or_wait)
        patch.setattr(trio.from_thread, "run", ask_and_tell)
        yield
