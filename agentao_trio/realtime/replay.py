"""What a new connection has to be told: the conversation so far, as items that can be created.

Kept from the events of the server: the order of the items, what was written, the transcripts of what was said, the
calls of functions and their outputs. Audio itself is not kept; an item that was spoken is told in words, and one that
was interrupted in the words that were heard by then. What nobody wrote down (audio without a transcript) is left out.
"""

from __future__ import annotations

import attrs

from agentao_trio.realtime.protocol import (
    ConversationItemAdded,
    ConversationItemDeleted,
    ConversationItemDone,
    ConversationItemInputAudioTranscriptionCompleted,
    ConversationItemTruncated,
    Item,
    ResponseOutputAudioTranscriptDelta,
    ResponseOutputTextDelta,
    ServerEvent,
)

__all__ = ["Ledger"]

#: Items kept; the oldest are forgotten.
MOST_ITEMS = 1000


@attrs.define(eq=False)
class _Entry:
    item: Item
    words: str = ""


class Ledger:
    """The items of a conversation in their order."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._order: list[str] = []

    def heard(self, event: ServerEvent) -> None:
        """Note what an event of the server changes. Never raises for what is in it."""
        match event:
            case ConversationItemAdded() | ConversationItemDone():
                self._upsert(event.item, event.previous_item_id)
            case ConversationItemDeleted():
                if self._entries.pop(event.item_id, None) is not None:
                    self._order.remove(event.item_id)
            case ConversationItemInputAudioTranscriptionCompleted():
                if event.item_id in self._entries:
                    self._entries[event.item_id].words = event.transcript
            case ResponseOutputAudioTranscriptDelta() | ResponseOutputTextDelta():
                if event.item_id in self._entries:
                    self._entries[event.item_id].words += event.delta
            case ConversationItemTruncated():
                self._truncate(event)

    def items(self) -> list[Item]:
        """The items as they can be created, in order."""
        found = (self._creatable(self._entries[item_id]) for item_id in self._order)
        return [item for item in found if item is not None]

    def _upsert(self, item: Item, previous: object) -> None:
        if not item.id:
            return
        known = self._entries.get(item.id)
        if known is not None:
            known.item = item
            return
        self._entries[item.id] = _Entry(item)
        behind = self._order.index(previous) + 1 if isinstance(previous, str) and previous in self._order else None
        self._order.insert(len(self._order) if behind is None else behind, item.id)
        if len(self._order) > MOST_ITEMS:
            del self._entries[self._order.pop(0)]

    def _truncate(self, event: ConversationItemTruncated) -> None:
        """The server forgets the words of what it cuts, so no more than a trace of them is told again."""
        entry = self._entries.get(event.item_id)
        if entry is not None and event.audio_end_ms == 0:
            entry.words, entry.item = "", attrs.evolve(entry.item, content=())

    @staticmethod
    def _creatable(entry: _Entry) -> Item | None:
        item = entry.item
        if item.type == "function_call":
            if item.status == "in_progress":
                return None
            return Item(type=item.type, id=item.id, call_id=item.call_id, name=item.name, arguments=item.arguments)
        if item.type == "function_call_output":
            return Item(type=item.type, id=item.id, call_id=item.call_id, output=item.output)
        words = entry.words or " ".join(part.words for part in item.content or () if part.words)
        if item.type != "message" or not words or item.role not in ("user", "assistant", "system"):
            return None
        return Item.message(item.role, words, id=item.id)  # type: ignore[arg-type]
