"""How long the caller waited for each of the model's responses, and what became of it.

A turn begins with a response and is over when the server has ended the response *and* all its audio was sent or cut.
``first_audio_seconds`` counts from the end of the caller's speech to the first packet on the wire, over as many
responses as that took: one that only calls a tool says nothing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

import attrs

from agentao_trio.realtime.playout import AudioPart

__all__ = ["Turns"]

#: Responses that are followed at a time. A server that begins more and ends none is broken.
_MOST = 64


@attrs.define(eq=False, kw_only=True)
class _Turn:
    response_id: str
    asked_at: float | None
    status: str | None = None
    first_delta_seconds: float | None = None
    first_audio_seconds: float | None = None
    barge_in: bool = False
    barge_in_silence_ms: float | None = None
    parts: set[AudioPart] = attrs.Factory(set)


class Turns:
    """The responses of one conversation. Methods that may end a turn return the data of the records to be published."""

    def __init__(self) -> None:
        self._turns: OrderedDict[str, _Turn] = OrderedDict()
        self._asked_at: float | None = None  # the end of the caller's speech that has had no answer yet
        self._underruns_told = 0
        self._spoken: deque[str] = deque(maxlen=_MOST)

    @property
    def active(self) -> list[str]:
        """The responses that the server has not ended, in the order in which they began."""
        return [turn.response_id for turn in self._turns.values() if turn.status is None]

    def has_audio(self, response_id: str) -> bool:
        """Whether audio of a response has come. The oldest responses are forgotten after a while."""
        return response_id in self._spoken

    def asked(self, now: float) -> None:
        """The caller has spoken, and waits for an answer."""
        self._asked_at = now

    def began(self, response_id: str) -> None:
        """The server began a response."""
        if response_id not in self._turns:
            self._turns[response_id] = _Turn(response_id=response_id, asked_at=self._asked_at)
            if len(self._turns) > _MOST:
                self._turns.popitem(last=False)

    def received(self, response_id: str, part: AudioPart, now: float) -> None:
        """Audio of a part came, and waits to be sent."""
        turn = self._turns.get(response_id)
        if turn is None:
            return
        if response_id not in self._spoken:
            self._spoken.append(response_id)
        turn.parts.add(part)
        if turn.first_delta_seconds is None and turn.asked_at is not None:
            turn.first_delta_seconds = now - turn.asked_at

    def sent(self, part: AudioPart, at: float) -> None:
        """A packet with audio of this part went out."""
        for turn in self._turns.values():
            if part in turn.parts:
                if turn.first_audio_seconds is None and turn.asked_at is not None:
                    turn.first_audio_seconds = at - turn.asked_at
                    turn.asked_at = self._asked_at = None
                return

    def played(self, response_id: str, part: AudioPart, underruns: int) -> list[dict[str, Any]]:
        """All of a part was sent; ``underruns`` are those of the conversation so far."""
        return self._without(response_id, part, underruns)

    def cut(
        self, response_id: str, part: AudioPart | None, *, silence_ms: float, underruns: int
    ) -> list[dict[str, Any]]:
        """A response, or a part of it, was interrupted; the last packet ended ``silence_ms`` after that was known."""
        turn = self._turns.get(response_id)
        if turn is None:
            return []
        turn.barge_in = True
        turn.barge_in_silence_ms = silence_ms
        return self._without(response_id, part, underruns)

    def ended(self, response_id: str, status: str, underruns: int) -> list[dict[str, Any]]:
        """The server ended a response."""
        turn = self._turns.get(response_id)
        if turn is None:
            return []
        turn.status = status
        return self._without(response_id, None, underruns)

    def _without(self, response_id: str, part: AudioPart | None, underruns: int) -> list[dict[str, Any]]:
        turn = self._turns.get(response_id)
        if turn is None:
            return []
        if part is not None:
            turn.parts.discard(part)
        if turn.status is None or turn.parts:
            return []
        del self._turns[response_id]
        figures = {
            "first_delta_seconds": turn.first_delta_seconds,
            "first_audio_seconds": turn.first_audio_seconds,
            "barge_in_silence_ms": turn.barge_in_silence_ms,
        }
        told, self._underruns_told = self._underruns_told, underruns
        return [
            {
                "response_id": response_id,
                "status": turn.status,
                "barge_in": turn.barge_in,
                "underruns": underruns - told,
                **{name: round(value, 6) for name, value in figures.items() if value is not None},
            }
        ]
