"""What holds for every test: examples and orders of tasks that do not depend on the day, or on how busy a machine is.

``--hypothesis-profile=search`` has others every time, and remembers the examples that failed.
"""

from __future__ import annotations

import random

import pytest
import trio
from hypothesis import HealthCheck, settings

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
