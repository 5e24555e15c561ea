"""One response of the scripted model: its events, and when each is due.

The steps of a turn are laid out when the response begins; a step makes its events when it is its turn, from what has
come before it. Cancelling drops the steps that are left and closes what is open, in the order of a response that ends
by itself: parts, items, response.
"""

from __future__ import annotations

import base64
import math
from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any, Literal

import attrs

from agentao_trio.audio import Codec, audioop, from_pcm16
from agentao_trio.realtime.script import ToolCall, Turn
from agentao_trio.wav import read_wav

__all__ = ["OutputItem", "Reply"]

JSON = dict[str, Any]

#: Milliseconds of audio in one delta.
DELTA_MS = 100
#: Seconds that saying one letter takes, where a tone stands for speech.
SECONDS_PER_LETTER = 0.06
_SPOKEN = {"audio/pcmu": (8000, Codec.PCMU), "audio/pcma": (8000, Codec.PCMA), "audio/pcm": (24000, None)}


@attrs.define(eq=False, kw_only=True)
class OutputItem:
    """An item on its way out: a message with one part, or a call of a tool."""

    id: str
    index: int
    modality: str
    tool: ToolCall | None = None
    call_id: str = ""
    said: str = ""
    sent_bytes: int = 0
    open: bool = False

    def shown(self, status: str, *, empty: bool = False) -> JSON:
        """The item as its events show it."""
        base: JSON = {"id": self.id, "object": "realtime.item", "status": status}
        if self.tool is not None:
            call = {"name": self.tool.name, "call_id": self.call_id, "arguments": "" if empty else self.said}
            return base | {"type": "function_call"} | call
        return base | {"type": "message", "role": "assistant", "content": [] if empty else [self._content()]}

    def _content(self) -> JSON:
        if self.modality == "audio":
            return {"type": "output_audio", "transcript": self.said}
        return {"type": "output_text", "text": self.said}

    def part(self, *, empty: bool = False) -> JSON:
        """The part as ``content_part`` events show it."""
        words = "" if empty else self.said
        return {"type": "audio", "transcript": words} if self.modality == "audio" else {"type": "text", "text": words}


class Reply:
    """One response. ``new_id`` makes ids of items, ``began`` is when it was created."""

    def __init__(
        self,
        turn: Turn,
        *,
        id: str,
        new_id: Callable[[], str],
        began: float,
        shown: JSON,
        modality: str,
        audio_format: JSON,
        in_conversation: bool,
    ) -> None:
        self.id = id
        self.turn = turn
        self.in_conversation = in_conversation
        self.over: bool = False
        self.items: list[OutputItem] = []
        self._new_id = new_id
        self._modality = modality
        self._format = audio_format
        self._shown = shown
        self._done: list[JSON] = []
        #: What is left to do: when, and what; whether it is a delta, which may still slip out after an interruption.
        self._steps: deque[tuple[float, bool, Callable[[], Iterator[JSON]]]] = deque()
        self._lay_out(began + turn.think_seconds)

    @property
    def due_at(self) -> float | None:
        """When the next step is due."""
        return self._steps[0][0] if self._steps else None

    @property
    def bytes_per_ms(self) -> int:
        """Bytes of audio in a millisecond."""
        rate, codec = _SPOKEN[self._format["type"]]
        return rate * (2 if codec is None else 1) // 1000

    def shown(self, status: str, details: JSON | None = None) -> JSON:
        """The response as its events show it."""
        usage = None
        if status != "in_progress":
            spent = sum(len(item.said) // 4 + 1 for item in self.items)
            of_input = {"text_tokens": 40, "audio_tokens": 60, "cached_tokens": 0}
            usage = {
                "input_tokens": 100,
                "output_tokens": spent,
                "total_tokens": 100 + spent,
                "input_token_details": of_input,
                "output_token_details": {"text_tokens": spent, "audio_tokens": 0},
            }
        return self._shown | {
            "id": self.id,
            "object": "realtime.response",
            "status": status,
            "status_details": details,
            "output": self._done,
            "usage": usage,
        }

    def step(self, now: float) -> list[JSON]:
        """The events of the next step if it is due, and nothing otherwise."""
        return list(self._steps.popleft()[2]()) if self._steps and self._steps[0][0] <= now else []

    def postpone(self, seconds: float) -> None:
        """Everything that is left comes later."""
        self._steps = deque((at + seconds, is_delta, step) for at, is_delta, step in self._steps)

    def cancel(self, reason: str, *, straggler: bool) -> Iterator[JSON]:
        """End now: what is on its way (a delta, if ``straggler``), what is open closed, and the end."""
        if straggler and self._steps and self._steps[0][1]:
            yield from self._steps.popleft()[2]()
        yield from self.end("cancelled", {"type": "cancelled", "reason": reason})

    def end(self, status: str, details: JSON | None) -> Iterator[JSON]:
        """End now with this status, whatever is left."""
        self._steps.clear()
        for item in self.items:
            if item.open:
                yield from self._close(item, "incomplete")
        self.over = True
        yield {"type": "response.done", "response": self.shown(status, details)}

    # -- the steps of a turn ------------------------------------------------------------------------------------

    def _lay_out(self, at: float) -> None:
        turns = (self.turn, *self.turn.more)
        lanes: list[list[tuple[float, bool, Callable[[], Iterator[JSON]]]]] = []
        for turn in turns:
            says = [None] if turn.text or turn.audio != "tone" else []
            for tool in (*says, *filter(None, [turn.tool])):
                lane, at_end = self._lay_out_item(turn, tool, at)
                lanes.append(lane)
                if self.turn.fault != "interleaved":
                    at = at_end
        steps = [step for lane in lanes for step in lane]
        if self.turn.fault == "interleaved":
            steps.sort(key=lambda step: step[0])
        last = max((step[0] for step in steps), default=at)
        self._steps.extend(steps)
        self._steps.append((last, False, self._finish))

    def _lay_out_item(
        self, turn: Turn, tool: ToolCall | None, at: float
    ) -> tuple[list[tuple[float, bool, Callable[[], Iterator[JSON]]]], float]:
        index = len(self.items)
        modality = "" if tool is not None else self._modality
        item = OutputItem(id=self._new_id(), index=index, modality=modality, tool=tool)
        item.call_id = f"call_{item.id.removeprefix('item_')}"
        self.items.append(item)
        steps: list[tuple[float, bool, Callable[[], Iterator[JSON]]]] = [(at, False, partial(self._open, item))]
        for seconds, words, audio in self._pieces(turn, item):
            at += seconds
            steps.append((at, True, partial(self._delta, item, words, audio)))
        if self.turn.fault != "missing_item_done":
            steps.append((at, False, partial(self._close, item, "completed")))
        return steps, at

    def _pieces(self, turn: Turn, item: OutputItem) -> Iterator[tuple[float, str, bytes]]:
        """How long to wait, the words and the audio of each delta."""
        if item.tool is not None:
            half = (len(item.tool.arguments) + 1) // 2
            yield from (
                (0.0, piece, b"") for piece in (item.tool.arguments[:half], item.tool.arguments[half:]) if piece
            )
            return
        if item.modality == "text":
            yield from ((0.01, piece, b"") for piece in _words(turn.text, len(turn.text.split())))
            return
        sound = _sound(turn.audio, len(turn.text), self._format["type"])
        size = self.bytes_per_ms * DELTA_MS
        chunks = [sound[start : start + size] for start in range(0, len(sound), size)]
        pause = DELTA_MS / 1000 / turn.pace
        for number, (words, chunk) in enumerate(zip(_words(turn.text, len(chunks)), chunks, strict=True)):
            yield (pause if number else 0.0), words, chunk

    def _open(self, item: OutputItem) -> Iterator[JSON]:
        item.open = True
        shown = item.shown("in_progress", empty=True)
        yield self._of(item, "response.output_item.added", item=shown)
        if self.in_conversation:
            yield {"type": "conversation.item.added", "item": shown}
        if item.tool is None:
            yield self._of(item, "response.content_part.added", content_index=0, part=item.part(empty=True))

    def _delta(self, item: OutputItem, words: str, audio: bytes) -> Iterator[JSON]:
        item.said += words
        if item.tool is not None:
            yield self._of(item, "response.function_call_arguments.delta", call_id=item.call_id, delta=words)
            return
        kind = "output_audio_transcript" if item.modality == "audio" else "output_text"
        if words:
            yield self._of(item, f"response.{kind}.delta", content_index=0, delta=words)
        if audio:
            item.sent_bytes += len(audio)
            delta = base64.b64encode(audio).decode()
            yield self._of(item, "response.output_audio.delta", content_index=0, delta=delta)

    def _close(self, item: OutputItem, status: str) -> Iterator[JSON]:
        item.open = False
        if item.tool is not None:
            name = item.tool.name
            yield self._of(
                item, "response.function_call_arguments.done", call_id=item.call_id, name=name, arguments=item.said
            )
        elif item.modality == "audio":
            yield self._of(item, "response.output_audio.done", content_index=0)
            yield self._of(item, "response.output_audio_transcript.done", content_index=0, transcript=item.said)
        else:
            yield self._of(item, "response.output_text.done", content_index=0, text=item.said)
        if item.tool is None:
            yield self._of(item, "response.content_part.done", content_index=0, part=item.part())
        shown = item.shown(status)
        self._done.append(shown)
        yield self._of(item, "response.output_item.done", item=shown)
        if self.in_conversation:
            yield {"type": "conversation.item.done", "item": shown}

    def _finish(self) -> Iterator[JSON]:
        fault = self.turn.fault
        if fault in {"max_output_tokens", "content_filter"}:
            yield from self.end("incomplete", {"type": "incomplete", "reason": fault})
            return
        if fault == "missing_item_done":
            for item in self.items:
                item.open = False
        yield from self.end("completed", None)
        if fault == "late_delta" and self.items:
            yield self._of(self.items[0], "response.output_audio.delta", content_index=0, delta="AAAA")

    def _of(self, about: OutputItem, wire_type: str, /, **rest: Any) -> JSON:
        """An event about an item. Those about the item as a whole name it by showing it."""
        named = {} if "item" in rest else {"item_id": about.id}
        return {"type": wire_type, "response_id": self.id, **named, "output_index": about.index, **rest}


def _words(text: str, pieces: int) -> list[str]:
    """``text`` in so many pieces, cut between words; later ones may be empty."""
    words = [word + " " for word in text.split(" ")]
    words[-1] = words[-1][:-1]
    bounds = [round(number * len(words) / max(1, pieces)) for number in range(pieces + 1)]
    return ["".join(words[start:end]) for start, end in pairwise(bounds)]


@lru_cache(maxsize=128)
def _sound(audio: bytes | Literal["tone"], letters: int, format_type: str) -> bytes:
    """A turn's audio in the session's format. Kept, as many calls play the same script."""
    rate, codec = _SPOKEN[format_type]
    if audio == "tone":
        pcm = _tone(max(0.2, letters * SECONDS_PER_LETTER), rate)
    else:
        sound = read_wav(audio)
        pcm = sound.samples
        if sound.rate != rate:
            # Upwards audioop does well enough for a model that only has to be understood.
            pcm, _ = audioop.ratecv(pcm, 2, 1, sound.rate, rate, None)
    return pcm if codec is None else from_pcm16(pcm, codec)


def _tone(seconds: float, rate: int) -> bytes:
    """A tone of 440 Hz, fairly loud."""
    samples = int(seconds * rate)
    return b"".join(
        int(8000 * math.sin(2 * math.pi * 440 * number / rate)).to_bytes(2, "little", signed=True)
        for number in range(samples)
    )
