"""What a new connection is told: the conversation so far, as items that can be created.

Audio is not kept: what was spoken is told in the words of its transcript, all of them also where the caller interrupted
(which words were heard is not known, only for how many milliseconds), and none where nothing was heard. Calls of
functions and their outputs are told as they were. What nobody wrote down is left out.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Literal, cast

from agentao_trio.realtime.conversation import Conversation, ConversationItem
from agentao_trio.realtime.protocol import (
    ClientEvent,
    ConversationItemAdded,
    ConversationItemCreate,
    ConversationItemDelete,
    ConversationItemDeleted,
    ConversationItemDone,
    ErrorEvent,
    Item,
    ServerEvent,
)

__all__ = ["Replay", "Unconfirmed", "replayable"]

log: logging.Logger = logging.getLogger("agentao_trio.realtime")

#: Creations and deletions kept for a next connection, where a server confirms none.
MOST_UNCONFIRMED = 256


class Replay:
    """Puts a conversation into a new connection. What the server answers to that is no news, and kept from everybody.

    ``counts`` gets ``items_replayed`` and ``items_left_behind``.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._asked: dict[str, str] = {}
        self._told: set[str] = set()

    @property
    def pending(self) -> bool:
        """Whether an item was not answered yet."""
        return bool(self._asked)

    def begin(self, conversation: Conversation, new_id: Callable[[str], str]) -> list[ClientEvent]:
        """What to send to a new connection."""
        items = replayable(conversation)
        self._asked = {new_id("event"): str(item.id) for item in items}
        self._told = set()
        return [
            ConversationItemCreate(item=item, event_id=event_id)
            for event_id, item in zip(self._asked, items, strict=True)
        ]

    def is_answer(self, event: ServerEvent) -> bool:
        """Whether ``event`` is about the replay and nothing else."""
        if isinstance(event, ErrorEvent) and event.error.event_id in self._asked:
            log.warning("an item was not taken into the new connection: %s", event.error.code)
            del self._asked[event.error.event_id]
            self._counts["items_left_behind"] += 1
            return True
        if not isinstance(event, ConversationItemAdded | ConversationItemDone):
            return False
        for event_id, item_id in self._asked.items():
            if item_id == event.item.id:
                del self._asked[event_id]
                self._told.add(item_id)
                self._counts["items_replayed"] += 1
                return True
        return event.item.id in self._told


class Unconfirmed:
    """Creations and deletions of items that the server has not confirmed: a next connection is told of them again."""

    def __init__(self) -> None:
        self._events: dict[str, ConversationItemCreate | ConversationItemDelete] = {}

    def __repr__(self) -> str:
        return f"<Unconfirmed {len(self._events)}>"

    @property
    def events(self) -> list[ClientEvent]:
        """What to send once more, in order."""
        return list(self._events.values())

    def sent(self, event_id: str, event: ClientEvent) -> None:
        """An event of the client is on its way. Of very many that nothing answers the oldest are forgotten."""
        if isinstance(event, ConversationItemCreate | ConversationItemDelete):
            self._events[event_id] = event
            if len(self._events) > MOST_UNCONFIRMED:
                del self._events[next(iter(self._events))]

    def heard(self, event: ServerEvent) -> None:
        """An event of the server: it may confirm or refuse one."""
        match event:
            case ConversationItemAdded(item=item):
                self._confirm(ConversationItemCreate, item.id)
            case ConversationItemDeleted(item_id=item_id):
                self._confirm(ConversationItemDelete, item_id)
            case ErrorEvent(error=error):
                self._events.pop(error.event_id or "", None)

    def _confirm(self, kind: type[ClientEvent], item_id: str | None) -> None:
        for event_id, event in tuple(self._events.items()):
            named = event.item.id if isinstance(event, ConversationItemCreate) else event.item_id
            if isinstance(event, kind) and named == item_id:
                del self._events[event_id]


def replayable(conversation: Conversation) -> list[Item]:
    """The items of ``conversation`` as a new one can be given them, in order."""
    items = (_creatable(each) for each in conversation.items)
    return [item for item in items if item is not None]


def _creatable(known: ConversationItem) -> Item | None:
    item = known.item
    match item.type:
        case "function_call" if item.status != "in_progress" and item.name is not None:
            arguments = item.arguments or "{}"
            return Item(type=item.type, id=known.id, call_id=item.call_id, name=item.name, arguments=arguments)
        case "function_call_output":
            return Item(type=item.type, id=known.id, call_id=item.call_id, output=item.output or "")
        case "message" if known.text and known.heard_ms != 0 and item.role in ("user", "assistant", "system"):
            role = cast(Literal["user", "assistant", "system"], item.role)
            return Item.message(role, known.text, id=known.id)
    return None
