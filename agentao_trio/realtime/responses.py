"""When the model is asked to speak, and when it has spoken.

The server answers the caller by itself. It is asked for a response after tools and keys, for the greeting, and where
the program wants one; there is one wish at a time, as one response tells all the news there is. It waits for the end of
the response that is active, because there can be only one. It is dropped where the caller is speaking, or has spoken
and is still to be answered: that answer will tell the news. Where its connection is lost it is asked for in the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio

from agentao_trio.call import ActiveCall
from agentao_trio.errors import AgentaoError, RealtimeError, SessionClosed
from agentao_trio.realtime.dialogue import Dialogue
from agentao_trio.realtime.protocol import Item
from agentao_trio.realtime.session import RealtimeSession
from agentao_trio.records import RecordKind

__all__ = ["Responses"]


class Responses:
    """Asks ``model`` for responses, and tells it what happened besides the caller's words."""

    def __init__(self, call: ActiveCall, model: RealtimeSession, dialogue: Dialogue) -> None:
        self._call = call
        self._model = model
        self._dialogue = dialogue
        self._wish: Mapping[str, Any] | None = None
        self._asking: trio.CancelScope | None = None
        #: Responses that were not asked for, because the caller was speaking or about to be answered.
        self.suppressed: int = 0

    def want(self, params: Mapping[str, Any] | None = None) -> None:
        """A response is to be asked for, with these ``params``. A wish without any leaves those of an older one."""
        self._wish = params or self._wish or {}
        self._dialogue.changed.unpark_all()

    def caller_speaks(self) -> bool:
        """What is being asked for is not wanted any more. Returns whether there was any: it may begin all the same."""
        if self._asking is None:
            return False
        self._asking.cancel()
        return True

    async def run(self) -> None:
        """Ask for what is wanted, until cancelled or until the model's session is over."""
        dialogue = self._dialogue
        while True:
            while self._wish is None:
                await dialogue.changed.park()
            if dialogue.caller_speaking or dialogue.answer_due:
                self._wish = None
                self.suppressed += 1
                dialogue.changed.unpark_all()
            elif dialogue.turns.active:
                await dialogue.changed.park()
            elif not await self._ask():
                return

    async def _ask(self) -> bool:
        """Ask for the response that is wanted. Returns whether there is any point in asking again, some day."""
        params, self._wish = self._wish, None
        try:
            with trio.CancelScope() as self._asking:
                await self._model.create_response(params or None)
            self.suppressed += self._asking.cancelled_caught
        except SessionClosed:
            return False
        except RealtimeError as error:
            self._dialogue.publish_error(f"no response could be had: {error}", code=error.code, kind=error.type)
        finally:
            self._asking = None
            self._dialogue.changed.unpark_all()
        return True

    # -- for tools --------------------------------------------------------------------------------------------------

    def ask_to_go_on(self) -> None:
        """The model has new outputs of tools to speak about."""
        self.want()

    async def answer_tool(self, tool_call_id: str, output: str) -> None:
        """Give the model the output of a tool."""
        await self._create(Item.function_call_output(tool_call_id, output))

    async def tell(self, words: str) -> None:
        """Tell the model something that nobody said."""
        await self._create(Item.message("system", words))

    async def caller_pressed(self, keys: str) -> None:
        """Tell the model which keys the caller pressed, and have it answer."""
        await self._create(Item.message("user", f"[pressed on the keypad: {keys}]"))
        self.want()

    async def wait_said(self, response_id: str) -> bool:
        """Wait until this response is over and was heard. Returns whether there was anything to be heard."""
        dialogue = self._dialogue
        await trio.lowlevel.checkpoint()
        while response_id in dialogue.turns.active:
            await dialogue.changed.park()
        if not dialogue.turns.has_audio(response_id):
            return False
        await self._wait_heard()
        return True

    async def have_said(self) -> None:
        """Have the model say what it was told to, without using tools, and wait until that was heard.

        Where the caller speaks instead, it is the answer to the caller that is waited for.
        """
        dialogue = self._dialogue
        self.want({"tool_choice": "none"})
        await trio.lowlevel.checkpoint()
        while self._wish is not None or self._asking is not None or dialogue.answer_due or dialogue.turns.active:
            await dialogue.changed.park()
        await self._wait_heard()

    def publish_tool(self, **data: Any) -> None:
        """Tell of a tool."""
        self._call.publish(RecordKind.TOOL, **data)

    def tool_failed(self, name: str, error: str) -> None:
        """Tell of a tool that failed."""
        self._dialogue.publish_error(f"{name}: {error}", source="tool")

    async def _wait_heard(self) -> None:
        await self._dialogue.speaker.wait_silent()
        await self._call.wait_played()

    async def _create(self, item: Item) -> None:
        try:
            await self._model.create_item(item)
        except AgentaoError as error:
            self._dialogue.publish_error(f"the model could not be told of something: {error}")
