"""Bridged calls cancelled in the middle of everything: a farewell happens once or not at all, and nothing is left.

Each scenario is cancelled at a few of its steps here; ``points=None`` goes through all of them.
"""

from __future__ import annotations

from collections import Counter

import pytest

from agentao_trio.realtime.bridge import bridge
from agentao_trio.realtime.configuration import SessionConfig
from agentao_trio.realtime.script import Script, ToolCall, Turn
from agentao_trio.realtime.session import open_realtime
from agentao_trio.realtime.simulator import simulated
from agentao_trio.realtime.tools import Tool, hangup, transfer
from agentao_trio.records import Record, RecordKind
from tests.support.sweep import TRUNK, Scenario, World, interrupt, sweep

POINTS = 14
#: Rings, sends silence, and stays.
PATIENT = "+15550100004"


class Farewell:
    """A model that says goodbye and leaves by ``tool``. Counts what was asked of the gateway, over all runs."""

    def __init__(self, tool: Tool, name: str, arguments: str = "{}") -> None:
        self._tool = tool
        self._script = Script(
            turns=(Turn(text="Bye.", tool=ToolCall(name=name, arguments=arguments), think_seconds=0.05, pace=40),)
        )
        self.commands: list[Counter[str]] = []

    async def __call__(self, world: World) -> None:
        commands: Counter[str] = Counter()
        self.commands.append(commands)

        def count(record: Record) -> None:
            if record.data["phase"] == "sent":
                commands[record.data["method"]] += 1

        async with world.session() as session:
            session.hub.attach(count, kinds=[RecordKind.COMMAND])
            async with (
                await session.originate(PATIENT, trunk_id=TRUNK) as call,
                open_realtime("ws://scripted", config=SessionConfig(), connect=simulated(self._script)) as model,
                bridge(call, model, tools=[self._tool], greet=True) as talk,
            ):
                await talk.wait_ended()


FAREWELLS = {
    "hangup": lambda: Farewell(hangup(), "hangup"),
    "transfer": lambda: Farewell(transfer({"desk": "+15550100001"}), "transfer", '{"to": "desk"}'),
}


@pytest.mark.parametrize("name", FAREWELLS)
def test_a_farewell_that_is_not_cancelled_happens_once(name: str) -> None:
    farewell = FAREWELLS[name]()
    _, complaints = interrupt(farewell, 0)
    assert complaints == ()
    [commands] = farewell.commands
    # A transfer ends the call: there is nothing left to be hung up.
    assert commands == {"Originate": 1, **({"Terminate": 1} if name == "hangup" else {"ExecuteDialplan": 1})}


@pytest.mark.parametrize("name", FAREWELLS)
def test_a_farewell_that_is_cancelled_happens_once_or_not_at_all(name: str) -> None:
    farewell = FAREWELLS[name]()
    scenario: Scenario = farewell
    runs, findings = sweep(scenario, points=POINTS)
    assert findings == []
    assert runs == POINTS + 1
    assert all(commands["ExecuteDialplan"] <= 1 for commands in farewell.commands)
    transferred = [commands for commands in farewell.commands if commands["ExecuteDialplan"]]
    if name == "transfer":
        assert 0 < len(transferred) < len(farewell.commands), "some were cancelled before it, some after"
