"""The pytest plugin: the fixtures ``gateway`` and ``gateway_settings``. Found by pytest itself; needs pytest-trio.

The one file that imports pytest. What it needs of the package it imports when a fixture is used, as pytest loads it in
every run. A test that uses ``gateway`` is a trio test in virtual time, with no need to say so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

if TYPE_CHECKING:
    from agentao_trio.gateway import GatewaySettings
    from agentao_trio.testing import SimulatedGateway

try:
    from pytest_trio import trio_fixture  # type: ignore[import-untyped]
except ImportError:

    def trio_fixture(function: Any) -> Any:
        """Instead of a fixture that cannot work, one that says why."""

        @pytest.fixture(name=function.__name__)
        def missing() -> None:
            pytest.fail("the fixture 'gateway' of agentao-trio needs pytest-trio: pip install pytest-trio")

        return missing


@pytest.fixture
def gateway_settings() -> GatewaySettings:
    """How the fixture ``gateway`` behaves. Define a fixture of this name to have it otherwise."""
    from agentao_trio.gateway import GatewaySettings

    return GatewaySettings()


@trio_fixture  # type: ignore[untyped-decorator]
async def gateway(gateway_settings: GatewaySettings) -> AsyncIterator[SimulatedGateway]:
    """A gateway in memory and in virtual time: a :class:`~agentao_trio.testing.SimulatedGateway`."""
    from agentao_trio.testing import open_simulated_gateway

    async with open_simulated_gateway(settings=gateway_settings) as simulated:
        yield simulated


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what uses our ``gateway`` (another one does not use ``gateway_settings``) in virtual time."""
    for item in items:
        if {"gateway", "gateway_settings"} <= set(getattr(item, "fixturenames", ())):
            # In front of the marker that pytest-trio's own mode may have set already.
            item.add_marker(pytest.mark.trio(run=_run_in_virtual_time), append=False)


def _run_in_virtual_time(
    test: Callable[[], Awaitable[None]],
    *,
    clock: trio.abc.Clock | None,
    instruments: Sequence[trio.abc.Instrument],
) -> None:
    trio.run(test, clock=clock or trio.testing.MockClock(autojump_threshold=0), instruments=instruments)
