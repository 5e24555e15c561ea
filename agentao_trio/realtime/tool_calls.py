"""Tools at work: one task per call of a tool, with a deadline, and one farewell.

A tool that fails, takes too long or is called with arguments it does not take gives the model an error to read, and a
record; the conversation goes on. When all calls of one response have their outputs, the model is asked to go on.

A *farewell* (hangup, transfer) waits until the model has said goodbye and the caller has heard it. A model that asked
for it without a word is told to say goodbye first. Then it is carried out, once, whatever the caller says meanwhile:
a goodbye is often answered by one. What has been begun is finished under a short shield when everything else ends.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any, Protocol

import attrs
import trio

from agentao_trio.handlers import contained
from agentao_trio.realtime.tools import Line, Tool, output_text

__all__ = ["FAREWELL_SECONDS", "GOODBYE_SECONDS", "MOST_AT_A_TIME", "ToolCalls", "ToolPort", "ToolStatistics"]

log: logging.Logger = logging.getLogger("agentao_trio.realtime")

#: Seconds that a goodbye may take, from the model's wish to leave to the caller's having heard it.
GOODBYE_SECONDS = 10.0
#: Seconds that a farewell which has begun may take to be carried out, even when all else is cancelled.
FAREWELL_SECONDS = 3.0
#: Calls of tools that run at a time; the model is told that there are too many.
MOST_AT_A_TIME = 16

_SAY_GOODBYE = "It will be done as soon as you have said goodbye. Say it now, in one sentence."


class ToolPort(Protocol):
    """What tools need of the conversation they are called in."""

    def publish_tool(self, **data: Any) -> None: ...
    def tool_failed(self, name: str, error: str) -> None: ...
    async def answer_tool(self, tool_call_id: str, output: str) -> None: ...
    async def tell(self, words: str) -> None: ...
    def ask_to_go_on(self) -> None: ...
    async def wait_said(self, response_id: str) -> bool: ...
    async def have_said(self) -> None: ...


@attrs.frozen(kw_only=True)
class ToolStatistics:
    """Calls of tools so far, by what became of them; those still ``running`` are in none of the others."""

    requested: int
    running: int
    done: int
    failed: int
    timed_out: int
    #: Of tools there are not, with wrong arguments, too many at a time, a second farewell.
    refused: int
    cancelled: int


@attrs.frozen(kw_only=True)
class _ToolCall:
    name: str
    tool_call_id: str
    response_id: str
    arguments: str


@attrs.define(eq=False)
class _Outcome:
    """What became of one call: ``output`` is what the model reads, ``error`` what people do."""

    kind: str = "cancelled"
    output: str = ""
    error: str = ""
    #: The model has its output already: it was told to say goodbye.
    answered: bool = False
    is_farewell: bool = False

    def succeed(self, output: str) -> None:
        self.kind, self.output = "done", output

    def refuse(self, why: str) -> None:
        self._failed("refused", why, why)

    def time_out(self, seconds: float) -> None:
        why = f"the tool took longer than {seconds:g} seconds"
        self._failed("timed_out", why, why)

    def fail(self, call: _ToolCall, error: Exception) -> None:
        # What an exception says was written for the program's people, and may hold what is not the caller's to know.
        log.error("the tool %s failed", call.name, exc_info=error)
        self._failed("failed", f"the tool failed: {type(error).__name__}", f"{type(error).__name__}: {error}")

    def _failed(self, kind: str, for_the_model: str, for_people: str) -> None:
        self.kind, self.error = kind, for_people
        self.output = output_text({"error": for_the_model})


class ToolCalls:
    """Runs the model's calls of ``tools`` in ``nursery``, with ``line`` for those that act on the call."""

    def __init__(self, tools: Iterable[Tool], *, line: Line, conversation: ToolPort, nursery: trio.Nursery) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._line = line
        self._conversation = conversation
        self._nursery = nursery
        self._seen: deque[str] = deque(maxlen=256)
        self._pending: Counter[str] = Counter()  # calls without an output yet, by response
        self._leaving = ""  # the farewell that is under way
        self._left: set[str] = set()  # the farewells that were carried out
        self._counts: Counter[str] = Counter()

    def request(self, *, name: str, tool_call_id: str, response_id: str, arguments: str) -> None:
        """The model calls a tool. Never waits; the same call again is ignored."""
        if tool_call_id in self._seen:
            return
        self._seen.append(tool_call_id)
        self._counts["requested"] += 1
        self._pending[response_id] += 1
        call = _ToolCall(name=name, tool_call_id=tool_call_id, response_id=response_id, arguments=arguments)
        self._publish(call, "requested", arguments=arguments)
        self._counts["running"] += 1
        self._nursery.start_soon(self._run, call, name=f"tool {name}")

    def statistics(self) -> ToolStatistics:
        """A snapshot."""
        return ToolStatistics(**{field.name: self._counts[field.name] for field in attrs.fields(ToolStatistics)})

    async def _run(self, call: _ToolCall) -> None:
        began = trio.current_time()
        outcome = _Outcome()
        try:
            with contained(call, outcome.fail):
                await self._carry_out(call, outcome)
        finally:
            self._counts["running"] -= 1
            self._counts[outcome.kind] += 1
            if outcome.kind == "cancelled":
                self._publish(call, "cancelled")
        seconds = round(trio.current_time() - began, 6)
        if outcome.kind == "done":
            self._publish(call, "done", output=outcome.output, seconds=seconds)
        else:
            self._publish(call, "failed", error=outcome.error, seconds=seconds)
            if outcome.kind != "refused":
                self._conversation.tool_failed(call.name, outcome.error)
        await self._answer(call, outcome)

    async def _answer(self, call: _ToolCall, outcome: _Outcome) -> None:
        if not outcome.answered:
            await self._conversation.answer_tool(call.tool_call_id, outcome.output)
        elif outcome.kind != "done":
            await self._conversation.tell(f"{call.name}: {outcome.output}")
        self._pending[call.response_id] -= 1
        if not self._pending[call.response_id]:
            del self._pending[call.response_id]
            if not outcome.is_farewell or outcome.kind != "done":
                self._conversation.ask_to_go_on()

    async def _carry_out(self, call: _ToolCall, outcome: _Outcome) -> None:
        tool = self._tools.get(call.name)
        if tool is None:
            return outcome.refuse(f"there is no tool {call.name!r}; there are {', '.join(self._tools) or 'none'}")
        if self._counts["running"] > MOST_AT_A_TIME:
            return outcome.refuse(f"{MOST_AT_A_TIME} tools are at work already; try again later")
        try:
            arguments = tool.arguments(call.arguments)
        except ValueError as error:
            return outcome.refuse(f"wrong arguments: {error}")
        if not tool.farewell:
            return await self._perform(call, tool, arguments, outcome, deadline=tool.deadline)
        if self._leaving or tool.name in self._left:
            return outcome.refuse(f"{self._leaving or tool.name} is under way already")
        self._leaving = tool.name
        outcome.is_farewell = True
        try:
            with trio.move_on_after(GOODBYE_SECONDS):
                if not await self._conversation.wait_said(call.response_id):
                    outcome.answered = True
                    await self._conversation.answer_tool(call.tool_call_id, _SAY_GOODBYE)
                    await self._conversation.have_said()
            with trio.CancelScope(shield=True):
                await self._perform(call, tool, arguments, outcome, deadline=FAREWELL_SECONDS)
            if outcome.kind == "done":
                self._left.add(tool.name)
        finally:
            self._leaving = ""

    async def _perform(
        self, call: _ToolCall, tool: Tool, arguments: dict[str, Any], outcome: _Outcome, *, deadline: float
    ) -> None:
        self._publish(call, "started")
        line = (self._line,) if tool.takes_line else ()
        with trio.move_on_after(deadline) as patience:
            result = tool.function(*line, **arguments)
            if tool.is_async:
                result = await result
            outcome.succeed(output_text(result))
        if patience.cancelled_caught:
            outcome.time_out(deadline)

    def _publish(self, call: _ToolCall, phase: str, **data: Any) -> None:
        self._conversation.publish_tool(name=call.name, tool_call_id=call.tool_call_id, phase=phase, **data)
