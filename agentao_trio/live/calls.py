"""One call as dashboards see it: its object, the numbers of its changes, what was said, what happened lately.

The object is only ever changed by the patch that goes out with the change, so that what a client folds cannot differ
from what the server knows. Objects are replaced, never changed in place: an event that waits to be sent keeps its own.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from agentao_trio.live.fold import merge_patch

__all__ = ["LiveCall", "iso", "iso_ms"]

#: Envelopes that a late joiner gets of one call. Samples of quality are not among them.
RECENT_EVENTS = 100
#: What is kept of a conversation: messages, and characters in all of them.
MESSAGES = 500
CHARACTERS = 200_000
#: Recordings of one call that its object names.
RECORDINGS = 20
#: Samples of quality for a late joiner's plots: a minute at one a second.
SAMPLES = 60

#: The end of the year 9999, beyond which there is no ISO 8601 time of four-digit years.
_LAST_MS = 253_402_300_799_999


def iso(at: float) -> str:
    """Unix seconds in ISO 8601, in UTC, with milliseconds and Z. Times out of its range become the nearest in it."""
    return _iso(_milliseconds(at))


def _milliseconds(at: float) -> int:
    return round(min(max(at * 1000, 0), _LAST_MS))


def iso_ms(milliseconds: Any) -> str | None:
    """Unix milliseconds of a gateway in ISO 8601; None for 0, which means "not set", and for what is no time."""
    if not isinstance(milliseconds, int) or not 0 < milliseconds <= _LAST_MS:
        return None
    return _iso(milliseconds)


def _iso(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03}Z"


class LiveCall:
    """A call's object and what is kept beside it. Its changes are numbered from the one after ``seq``."""

    def __init__(self, epoch: str, call_sid: str, *, at: float, seq: int = 0) -> None:
        self._epoch = epoch
        self.call_sid: str = call_sid
        self.began_at = at
        self.answered_at: float | None = None
        #: Since when it is over; None while it goes on.
        self.ended_at: float | None = None
        self.object: dict[str, Any] = {"seq": seq}
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT_EVENTS)
        self._samples: deque[tuple[Any, ...]] = deque(maxlen=SAMPLES)
        self._messages: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._characters = 0
        self._tseq = 0

    @property
    def tenant(self) -> str:
        """Whose it is; "" where nobody said."""
        tenant: str = self.object.get("tenantId", "")
        return tenant

    @property
    def status(self) -> str:
        """The call object's ``status``."""
        status: str = self.object.get("status", "")
        return status

    @property
    def seq(self) -> int:
        """The number of its last change."""
        seq: int = self.object["seq"]
        return seq

    @property
    def ai_status(self) -> str:
        """The status of the model on the call, ``none`` without one."""
        status: str = self.object.get("ai", {}).get("status", "none")
        return status

    def update(self, kind: str, data: Mapping[str, Any], patch: Mapping[str, Any], at: float) -> dict[str, Any]:
        """Change the object, and return the envelope that tells so."""
        seq = self.seq + 1
        whole = {**patch, "seq": seq, "updatedAt": iso(at)}
        self.object = merge_patch(self.object, whole)
        envelope = {
            "type": kind,
            "callSid": self.call_sid,
            "timestamp": iso(at),
            "data": dict(data),
            "seq": seq,
            "eventId": f"{self._epoch}:{self.call_sid}:{seq}",
            "patch": whole,
        }
        if kind == "quality_update":
            metrics = data["metrics"]
            figures = (metrics.get(name) for name in ("mos", "jitterMs", "packetLossPct"))
            self._samples.append((_milliseconds(at), *figures))
        else:
            self._recent.append(envelope)
        return envelope

    def renamed(self, call_sid: str, *, seq: int = 0) -> None:
        """The gateway calls it otherwise from now on. ``seq`` is the last number of another call by that name."""
        self.call_sid = call_sid
        self.object = {**self.object, "callSid": call_sid, "sid": call_sid, "seq": max(self.seq, seq)}
        self._recent.clear()

    def recording(self, sid: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        """The patch that enters a recording; the oldest goes when there are too many."""
        known = self.object.get("recordings", {})
        patch: dict[str, Any] = {sid: dict(entry)}
        if sid not in known and len(known) >= RECORDINGS:
            patch[next(iter(known))] = None
        count = self.object.get("recordingCount", 0) + (sid not in known)
        return {"recordings": patch, "recordingCount": count}

    # -- what is said -------------------------------------------------------------------------------------------------

    def is_final(self, item_id: str) -> bool:
        """Whether the text of this item is settled, so that its deltas are of no use any more."""
        return item_id in self._messages

    def said(self, message: dict[str, Any]) -> int:
        """Keep a final message, and return its number; 0 where it is known word for word."""
        item_id = message["itemId"]
        known = self._messages.get(item_id)
        if known is not None and {**known, "timestamp": ""} == {**message, "timestamp": ""}:
            return 0
        self._tseq += 1
        if known is not None:
            self._characters -= len(known["message"])
        self._messages[item_id] = message
        self._characters += len(message["message"])
        while len(self._messages) > MESSAGES or (self._characters > CHARACTERS and len(self._messages) > 1):
            _, oldest = self._messages.popitem(last=False)
            self._characters -= len(oldest["message"])
        return self._tseq

    # -- for those who come late --------------------------------------------------------------------------------------

    def full(self) -> dict[str, Any]:
        """The data of ``call_data``: the whole call, its recent events, and its quality of the last minute."""
        return {
            "callSid": self.call_sid,
            "data": self.object,
            "seq": self.seq,
            "events": list(self._recent),
            "quality": self.samples(),
        }

    def samples(self) -> list[tuple[Any, ...]]:
        """The latest samples of quality, the oldest first: Unix milliseconds, MOS, jitter in ms, lost packets in %."""
        return list(self._samples)

    def transcript(self) -> dict[str, Any]:
        """The data of ``call_transcript``: all that is kept of what was said."""
        known = {"conversationId": self.object["conversationId"]} if "conversationId" in self.object else {}
        return {
            "callSid": self.call_sid,
            "transcript": {"messages": list(self._messages.values()), **known},
            "tseq": self._tseq,
        }

    @property
    def has_transcript(self) -> bool:
        """Whether anything that was said is known."""
        return self._tseq > 0
