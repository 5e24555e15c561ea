"""Who said what, as records: the words of each item as they come, and once more when they are final.

Transcripts come in any order: that of the caller's words often after the reply. They are told apart by item, and
``order`` tells in which order the items were first heard of. What the model says is final when it has been *heard*: the
words come long before the sound, and the caller may interrupt.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import attrs

__all__ = ["Transcripts"]

#: Items that are remembered; words of an older one would begin a new one.
_ITEMS = 2048
#: Characters of one item that are kept.
_CHARACTERS = 100_000


@attrs.define(eq=False, kw_only=True)
class _Words:
    order: int
    role: str = ""
    #: Put together when it is asked for, and not for each of them.
    pieces: list[str] = attrs.Factory(list)
    characters: int = 0
    #: No more words will come.
    complete: bool = False
    #: Some of its sound has come, and not all of that has been sent.
    speaking: bool = False
    told: bool = False

    @property
    def text(self) -> str:
        if len(self.pieces) != 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0]

    def put(self, text: str) -> str:
        """As much more of it as there is room for; returns what that is."""
        kept = text[: max(0, _CHARACTERS - self.characters)]
        self.pieces.append(kept)
        self.characters += len(kept)
        return kept

    def clear(self) -> None:
        self.pieces, self.characters = [], 0


class Transcripts:
    """The words of one conversation. Methods return the data of the record to be published, or None."""

    def __init__(self) -> None:
        self._items: OrderedDict[str, _Words] = OrderedDict()
        self._count = 0

    def mention(self, item_id: str) -> None:
        """There is such an item; it takes its place in the order."""
        self._words(item_id)

    def delta(self, item_id: str, role: str, delta: str) -> Callable[[], dict[str, Any]] | None:
        """More words. The data are made when the record is, if there is anybody to read it."""
        words = self._words(item_id)
        if words.told or not delta:
            return None
        words.role = role
        offset = words.characters
        kept = words.put(delta)
        return lambda: {**self._data(item_id, "delta"), "delta": kept, "offset": offset}

    def complete(self, item_id: str, role: str, text: str | None = None) -> dict[str, Any] | None:
        """No more words will come; ``text`` is all of them, where that is known."""
        words = self._words(item_id)
        words.role = role
        words.complete = True
        if text is not None and not words.told:
            words.clear()
            words.put(text)
        return self._final_if_over(item_id)

    def speaking(self, item_id: str) -> None:
        """Sound of this item waits to be heard."""
        self._words(item_id).speaking = True

    def heard(self, item_id: str) -> dict[str, Any] | None:
        """All the sound of this item that has come was sent."""
        self._words(item_id).speaking = False
        return self._final_if_over(item_id)

    def cut(self, item_id: str, role: str, heard_ms: int) -> dict[str, Any] | None:
        """The sound of this item was interrupted after ``heard_ms``. The words go further than that."""
        words = self._words(item_id)
        words.role, words.speaking, words.complete = words.role or role, False, True
        if words.told or not (words.characters or heard_ms):
            words.told = True
            return None
        words.told = True
        return {**self._data(item_id, "final"), "interrupted": True, "heard_ms": heard_ms}

    def unfinished(self) -> list[dict[str, Any]]:
        """What can be told at the end of the conversation of items that never came to theirs."""
        left = [item_id for item_id, words in self._items.items() if words.characters and not words.told]
        finals = []
        for item_id in left:
            self._items[item_id].told = True
            finals.append({**self._data(item_id, "final"), "interrupted": True})
        return finals

    def _final_if_over(self, item_id: str) -> dict[str, Any] | None:
        words = self._words(item_id)
        if words.told or words.speaking or not words.complete:
            return None
        words.told = True
        final = self._data(item_id, "final")
        words.clear()
        return final

    def _data(self, item_id: str, phase: str) -> dict[str, Any]:
        words = self._items[item_id]
        return {"item_id": item_id, "order": words.order, "role": words.role, "phase": phase, "text": words.text}

    def _words(self, item_id: str) -> _Words:
        words = self._items.get(item_id)
        if words is None:
            self._count += 1
            words = self._items[item_id] = _Words(order=self._count)
            if len(self._items) > _ITEMS:
                self._items.popitem(last=False)
        return words
