"""What the events of a server add up to: the items in their order, who said what, which responses are under way.

A pure fold: the same events give the same conversation, whenever they come. Nothing in it raises for what a peer sends.

Items are immutable and replaced by newer ones. Their order is that of ``previous_item_id``; an item whose predecessor
is not there yet stands at the end until it comes. An item is put in once, however often and by whichever event it is
mentioned; one that was deleted stays deleted. What an event leaves out does not take away what is known: the last event
of an item has its words but not its audio, and a transcript may come long after the reply to it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, TypeVar

import attrs

from agentao_trio.realtime.accumulators import Accumulators, AccumulatorStatistics, PartKey
from agentao_trio.realtime.protocol import (
    UNSET,
    ContentPart,
    ConversationItemAdded,
    ConversationItemDeleted,
    ConversationItemDone,
    ConversationItemInputAudioTranscriptionCompleted,
    ConversationItemInputAudioTranscriptionDelta,
    ConversationItemInputAudioTranscriptionFailed,
    ConversationItemRetrieved,
    ConversationItemTruncated,
    Item,
    OutputEvent,
    PartEvent,
    Received,
    Response,
    ResponseContentPartAdded,
    ResponseContentPartDone,
    ResponseCreated,
    ResponseDone,
    ResponseFunctionCallArgumentsDone,
    ResponseOutputAudioDelta,
    ResponseOutputItemAdded,
    ResponseOutputItemDone,
    ServerEvent,
    UnsetType,
)
from agentao_trio.realtime.repeats import Repeats

__all__ = [
    "Change",
    "Conversation",
    "ConversationItem",
    "ConversationStatistics",
    "ItemAdded",
    "ItemChanged",
    "ItemRemoved",
    "ResponseEnded",
    "ResponseStarted",
    "TranscriptDelta",
    "TranscriptFailed",
    "TranscriptFinal",
]

Remembered = TypeVar("Remembered")

_TRANSCRIPTIONS = (
    ConversationItemInputAudioTranscriptionDelta
    | ConversationItemInputAudioTranscriptionCompleted
    | ConversationItemInputAudioTranscriptionFailed
)

#: Ids that are remembered of deleted items and of responses that are over.
_REMEMBERED = 4096


@attrs.frozen(kw_only=True)
class ConversationItem:
    """An item as far as it is known. Parts of its content have the GA names, whichever dialect told of them."""

    id: str
    item: Item
    response_id: str | None = None
    #: Milliseconds of its audio that were heard, where it was cut short.
    heard_ms: int | None = None
    interrupted: bool = False
    transcription_failed: bool = False

    @property
    def text(self) -> str:
        """All that it says: transcripts of audio, text of text, part after part."""
        return "".join(part.words for part in self.item.content or ())


@attrs.frozen(kw_only=True)
class Change:
    """Something that one event changed."""


@attrs.frozen(kw_only=True)
class ItemAdded(Change):
    """There is a new item."""

    item: ConversationItem


@attrs.frozen(kw_only=True)
class ItemChanged(Change):
    """More is known of an item, or it stands elsewhere."""

    item: ConversationItem


@attrs.frozen(kw_only=True)
class ItemRemoved(Change):
    """An item was deleted."""

    item_id: str


@attrs.frozen(kw_only=True)
class TranscriptDelta(Change):
    """More words of a part, behind ``offset`` characters that came before."""

    item_id: str
    content_index: int
    role: str
    delta: str
    offset: int


@attrs.frozen(kw_only=True)
class TranscriptFinal(Change):
    """All the words of a part."""

    item_id: str
    content_index: int
    role: str
    text: str


@attrs.frozen(kw_only=True)
class TranscriptFailed(Change):
    """What the caller said in a part could not be written down."""

    item_id: str
    content_index: int
    message: str


@attrs.frozen(kw_only=True)
class ResponseStarted(Change):
    """A response is under way."""

    response: Response


@attrs.frozen(kw_only=True)
class ResponseEnded(Change):
    """A response is over; its ``status`` says how."""

    response: Response


@attrs.frozen(kw_only=True)
class ConversationStatistics:
    """What a conversation holds and has left out."""

    items: int
    #: Items that wait for their predecessor.
    pending: int
    bytes_held: int
    #: Items that were dropped, the oldest first, to make room.
    items_dropped: int
    #: Events about items that were deleted, and responses told of again after their end.
    late: int
    #: Events that came twice, with the same id and the same bytes.
    duplicates: int
    accumulators: AccumulatorStatistics


class Conversation:
    """The conversation of one session. Bounded by ``most_items`` and, in bytes of UTF-8, ``most_bytes``."""

    def __init__(self, *, most_items: int = 4096, most_bytes: int = 16 << 20) -> None:
        self._most_items, self._most_bytes = most_items, most_bytes
        self._items: dict[str, ConversationItem] = {}
        self._after: dict[str, str | UnsetType | None] = {}  # the predecessor of each item, in the order of placing
        self._order: list[str] | None = []
        self._deleted: OrderedDict[str, None] = OrderedDict()
        self._over: OrderedDict[str, None] = OrderedDict()
        self._responses: dict[str, Response] = {}
        self._accumulators = Accumulators()
        self._sizes: dict[str, int] = {}
        #: Parts whose words so far are not in their item yet, by item: what kind of words, by part.
        self._growing: dict[str, dict[PartKey, str]] = {}
        #: Parts of which all the caller's words are known.
        self._transcribed: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._repeats = Repeats()
        self._held = self._items_dropped = self._late = 0

    def __repr__(self) -> str:
        return f"<Conversation of {len(self._items)} items, {len(self._responses)} responses in progress>"

    @property
    def items(self) -> tuple[ConversationItem, ...]:
        """All items, in their order."""
        for item_id in tuple(self._growing):
            self._settle(item_id)
        return tuple(self._items[item_id] for item_id in self._ordered())

    def item(self, item_id: str) -> ConversationItem | None:
        """One item."""
        self._settle(item_id)
        return self._items.get(item_id)

    @property
    def active_response(self) -> Response | None:
        """The newest response under way; one outside the conversation only where there is no other."""
        inside = [each for each in self._responses.values() if each.conversation_id is not None]
        return next(reversed(inside or list(self._responses.values())), None)

    @property
    def active_responses(self) -> tuple[Response, ...]:
        """All responses that are under way."""
        return tuple(self._responses.values())

    def transcript(self) -> tuple[tuple[str, str], ...]:
        """Role and words of every message that has any, in order."""
        return tuple(
            (each.item.role or "", each.text) for each in self.items if each.item.type == "message" and each.text
        )

    def statistics(self) -> ConversationStatistics:
        """A snapshot."""
        return ConversationStatistics(
            items=len(self._items),
            pending=sum(isinstance(after, str) and after not in self._after for after in self._after.values()),
            bytes_held=self._held,
            items_dropped=self._items_dropped,
            late=self._late,
            duplicates=self._repeats.count,
            accumulators=self._accumulators.statistics(),
        )

    def apply(self, received: Received) -> tuple[Change, ...]:
        """Take an event in, and say what it changed."""
        changes: list[Change] = []
        event = received.event
        if isinstance(event, ResponseOutputAudioDelta):
            return ()  # audio is played, not kept
        if self._repeats.has(received):
            return ()
        match event:
            case ConversationItemAdded(item=item) | ConversationItemDone(item=item):
                self._upsert(item, changes, after=event.previous_item_id)
            case ConversationItemRetrieved(item=item):
                self._upsert(item, changes)
            case ResponseOutputItemAdded(item=item) | ResponseOutputItemDone(item=item):
                self._upsert(item, changes, response_id=event.response_id)
            case ConversationItemDeleted(item_id=item_id):
                self._delete(item_id, changes)
            case ConversationItemTruncated():
                self._truncate(event, changes)
            case ResponseCreated(response=response):
                self._start(response, changes)
            case ResponseDone(response=response):
                self._end(response, changes)
            case OutputEvent():
                self._output(event, changes)
            case _:
                self._transcription(event, changes)
        while len(self._items) > self._most_items or self._held > self._most_bytes:
            self._items_dropped += 1
            self._remove(self._ordered()[0])
        return tuple(changes)

    # -- items ------------------------------------------------------------------------------------------------------

    def _upsert(
        self,
        item: Item,
        changes: list[Change],
        *,
        after: str | UnsetType | None = UNSET,
        response_id: str | None = None,
    ) -> None:
        item_id = item.id
        if not item_id:
            return
        if item_id in self._deleted:
            self._late += 1
            return
        known = self.item(item_id)
        fresh = known or ConversationItem(id=item_id, item=Item(type=item.type))
        fresh = attrs.evolve(fresh, item=_merged(fresh.item, item), response_id=response_id or fresh.response_id)
        before = self._after.get(item_id)
        if known is None or after is not UNSET:
            self._place(item_id, after)
        self._keep(fresh)
        if known is None:
            self._order = None
            changes.append(ItemAdded(item=fresh))
        elif fresh != known or before != self._after.get(item_id):
            changes.append(ItemChanged(item=fresh))

    def _place(self, item_id: str, after: str | UnsetType | None) -> None:
        if after == self._after.get(item_id, None if after is UNSET else UNSET) or after == item_id:
            return  # told again, it does not move
        self._after.pop(item_id, None)
        self._after[item_id] = after
        self._order = None

    def _ordered(self) -> list[str]:
        """All items in order: each directly behind its predecessor, of several behind the same one the newest first.

        What has no known predecessor stands at the end, in the order in which it came. Items that were deleted keep
        their place, unseen, for those behind them.
        """
        if self._order is not None:
            return self._order
        behind: dict[str | None, list[str]] = {}
        loose = []
        for item_id, after in self._after.items():
            if after is None or (after is not UNSET and after in self._after):
                behind.setdefault(after, []).append(item_id)
            else:
                loose.append(item_id)
        order: dict[str, None] = {}
        # Those at the beginning, then the loose ends, then what only a circle of predecessors leads to.
        for start in (*reversed(behind.get(None, ())), *loose, *self._after):
            stack = [start]
            while stack:
                item_id = stack.pop()
                if item_id not in order:
                    order[item_id] = None
                    stack.extend(behind.get(item_id, ()))
        self._order = [item_id for item_id in order if item_id in self._items]
        return self._order

    def _delete(self, item_id: str, changes: list[Change]) -> None:
        _remember(self._deleted, item_id)
        if item_id in self._items:
            self._remove(item_id)
            changes.append(ItemRemoved(item_id=item_id))

    def _remove(self, item_id: str) -> None:
        del self._items[item_id]
        for key in self._growing.pop(item_id, {}):
            self._accumulators.drop(key)
        self._held -= self._sizes.pop(item_id)
        self._order = None
        gone = [each for each in self._after if each not in self._items]
        if len(gone) > _REMEMBERED:
            after = self._after.pop(gone[0])
            self._after = {each: after if of == gone[0] else of for each, of in self._after.items()}

    def _truncate(self, event: ConversationItemTruncated, changes: list[Change]) -> None:
        known = self.item(event.item_id)
        if known is None:
            self._late += event.item_id in self._deleted
            return
        fresh = attrs.evolve(known, heard_ms=max(0, event.audio_end_ms), interrupted=True)
        self._keep(fresh)
        if fresh != known:
            changes.append(ItemChanged(item=fresh))

    def _keep(self, fresh: ConversationItem) -> None:
        size = _size(fresh.item)
        self._held += size - self._sizes.get(fresh.id, 0)
        self._sizes[fresh.id] = size
        self._items[fresh.id] = fresh

    # -- responses --------------------------------------------------------------------------------------------------

    def _start(self, response: Response, changes: list[Change]) -> None:
        response_id = response.id or ""
        if response_id in self._over:
            self._late += 1
        elif response_id not in self._responses:
            self._responses[response_id] = response
            changes.append(ResponseStarted(response=response))

    def _end(self, response: Response, changes: list[Change]) -> None:
        response_id = response.id or ""
        if response_id in self._over:
            self._late += 1
            return
        _remember(self._over, response_id)
        self._responses.pop(response_id, None)
        for item_id in tuple(self._growing):
            self._settle(item_id)
        self._accumulators.forget(response_id)
        for item in response.output or ():
            if item.id in self._items:
                self._upsert(item, changes, response_id=response_id)
        if response.status in ("cancelled", "incomplete", "failed"):
            for each in self.items:
                if each.response_id == response_id and each.item.status == "in_progress":
                    self._keep(attrs.evolve(each, item=attrs.evolve(each.item, status="incomplete")))
                    changes.append(ItemChanged(item=self._items[each.id]))
        changes.append(ResponseEnded(response=response))

    def _output(self, event: OutputEvent, changes: list[Change]) -> None:
        known = self._items.get(event.item_id)
        if isinstance(event, PartEvent) and not 0 <= event.content_index < _MOST_PARTS:
            return
        if event.response_id in self._over or event.item_id in self._deleted or known is None:
            self._late += event.response_id in self._over or event.item_id in self._deleted
            return
        match event:
            case ResponseContentPartAdded(part=part) | ResponseContentPartDone(part=part):
                self._settle(known.id)
                self._put_part(self._items[known.id], event.content_index, part, changes)
                return
            case ResponseFunctionCallArgumentsDone():
                call: dict[str, Any] = {
                    "arguments": event.arguments,
                    "call_id": event.call_id or None,
                    "name": event.name,
                }
                fresh = attrs.evolve(known, item=_merged(known.item, Item(type=known.item.type, **call)))
                self._keep(fresh)
                if fresh != known:
                    changes.append(ItemChanged(item=fresh))
                return
        told = self._accumulators.apply(event)
        if told is None or not isinstance(event, PartEvent):
            return
        delta = getattr(event, "delta", None)
        if delta is None and not told.complete:
            return
        growing = self._growing.setdefault(known.id, {})
        growing[told.key] = "audio" if "audio" in event.TYPE else "text"
        at: dict[str, Any] = {
            "item_id": event.item_id,
            "content_index": event.content_index,
            "role": known.item.role or "assistant",
        }
        if delta is not None:
            changes.append(TranscriptDelta(**at, delta=delta, offset=told.characters - len(delta)))
        else:
            self._settle(known.id)
            changes.append(TranscriptFinal(**at, text=self._accumulators.text(told.key) or ""))

    def _settle(self, item_id: str) -> None:
        """Put the words that have come into their item. Not done for each of them: that would copy all the others."""
        for key, modality in self._growing.pop(item_id, {}).items():
            known, text = self._items.get(item_id), self._accumulators.text(key)
            if known is not None and text is not None:
                self._say(known, key[2], modality, text)

    def _put_part(self, known: ConversationItem, index: int, part: ContentPart, changes: list[Change]) -> None:
        content = _filled(known.item.content, index)
        content[index] = _part_merged(content[index], part, known.item.role)
        fresh = attrs.evolve(known, item=attrs.evolve(known.item, content=tuple(content)))
        self._keep(fresh)
        if fresh != known:
            changes.append(ItemChanged(item=fresh))

    def _say(self, known: ConversationItem, index: int, modality: str, text: str) -> None:
        content = _filled(known.item.content, index)
        words = {"transcript": text} if modality == "audio" else {"text": text}
        direction = "input" if known.item.role in ("user", "system") else "output"
        content[index] = attrs.evolve(content[index], type=content[index].type or f"{direction}_{modality}", **words)
        self._keep(attrs.evolve(known, item=attrs.evolve(known.item, content=tuple(content))))

    # -- the caller's words -----------------------------------------------------------------------------------------

    def _transcription(self, event: ServerEvent, changes: list[Change]) -> None:
        if not isinstance(event, _TRANSCRIPTIONS):
            return
        if event.item_id in self._deleted:
            self._late += 1
            return
        index = event.content_index or 0
        if not 0 <= index < _MOST_PARTS:
            return
        if event.item_id not in self._items:  # its words may come before it does
            self._upsert(Item(type="message", id=event.item_id, role="user"), changes)
        known = self._items[event.item_id]
        if isinstance(event, ConversationItemInputAudioTranscriptionFailed):
            self._keep(attrs.evolve(known, transcription_failed=True))
            message = event.error.message or ""
            changes.append(TranscriptFailed(item_id=known.id, content_index=index, message=message))
            return
        at: dict[str, Any] = {"item_id": known.id, "content_index": index, "role": known.item.role or "user"}
        if isinstance(event, ConversationItemInputAudioTranscriptionCompleted):
            _remember(self._transcribed, (known.id, index))
            self._accumulators.drop(("", known.id, index))
            self._growing.get(known.id, {}).pop(("", known.id, index), None)
            self._say(known, index, "audio", event.transcript)
            changes.append(TranscriptFinal(**at, text=event.transcript))
        elif (known.id, index) in self._transcribed:
            self._late += 1
        elif event.delta:
            key = ("", known.id, index)
            before = "" if self._accumulators.part(key) else self._words_of(known, index)
            told = self._accumulators.add(key, before + event.delta)
            self._growing.setdefault(known.id, {})[key] = "audio"
            if told is not None:
                offset = told.characters - len(event.delta)
                changes.append(TranscriptDelta(**at, delta=event.delta, offset=offset))

    def _words_of(self, known: ConversationItem, index: int) -> str:
        content = known.item.content or ()
        return (content[index].transcript if index < len(content) else None) or ""


# -- merging what is known with what is told ------------------------------------------------------------------------


def _merged(known: Item, told: Item) -> Item:
    """``known`` with all that ``told`` says. An item that is complete is not made incomplete again."""
    said = {
        field.name: value
        for field in attrs.fields(Item)
        if field.name != "content" and (value := getattr(told, field.name)) is not None
    }
    if not told.type:
        del said["type"]
    if known.status in ("completed", "incomplete") and told.status == "in_progress":
        del said["status"]
    if told.content is not None:
        content = _filled(known.content, len(told.content) - 1)
        for index, part in enumerate(told.content):
            content[index] = _part_merged(content[index], part, told.role or known.role)
        said["content"] = tuple(content)
    return attrs.evolve(known, **said)


def _part_merged(known: ContentPart, told: ContentPart, role: str | None) -> ContentPart:
    said = {
        field.name: value
        for field in attrs.fields(ContentPart)
        if (value := getattr(told, field.name)) is not None and not (value == "" and getattr(known, field.name))
    }
    said.pop("audio", None)  # an item's audio is played, not kept
    if told.type in ("text", "audio"):
        said["type"] = f"{'input' if role in ('user', 'system') else 'output'}_{told.type}"
    return attrs.evolve(known, **said)


#: The highest index of a part that is believed.
_MOST_PARTS = 256


def _filled(content: tuple[ContentPart, ...] | None, index: int) -> list[ContentPart]:
    parts = list(content or ())
    parts.extend(ContentPart() for _ in range(index + 1 - len(parts)))
    return parts


def _size(item: Item) -> int:
    words = [item.arguments, item.output]
    for part in item.content or ():
        words += [part.text, part.transcript, part.image_url]
    return sum(len(each.encode("utf-8", "surrogatepass")) for each in words if each)


def _remember(ids: OrderedDict[Remembered, None], each: Remembered) -> None:
    ids[each] = None
    if len(ids) > _REMEMBERED:
        ids.popitem(last=False)
