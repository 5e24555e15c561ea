"""Behaviour that is legal and unusual, to find out what a client cannot take (``agentao-trio gateway --fuzz SEED``).

Everything here is within PROTOCOL: replies that are bare or missing, late, with odd words in their status; events that
overtake the reply; call ids of the gateway's own; fields of a newer version behind those that are known; frames of
methods that nobody knows, and padding, between the others; holds and resumes by the far end; streams that are reset
and replaced. One seed gives one gateway, as far as the client does the same.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import attrs

from agentao_trio.gateway.fault import Dice, Downward, Fault
from agentao_trio.gateway.subscriptions import Peer
from agentao_trio.messages import CallEvent, EventType, Message, MethodId, OriginateRequest, OriginateResponse
from agentao_trio.wire import encode_frame

__all__ = ["Fuzz"]

_WORDS = ("", "QUEUED", "ok", "in_progress", "ÜBERMITTELT", "200 OK", "a status of more words than anybody expects")
#: Shares of replies, frames and calls that are meddled with.
_OFTEN, _SELDOM = 0.3, 0.05


class Fuzz(Fault):
    """Legal but unusual behaviour."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._names = 0

    def _now_and_then(self, share: float) -> bool:
        return self.dice.random() < share

    # -- replies --------------------------------------------------------------------------------------------------

    def request(self, peer: Peer, method: MethodId, message: Any) -> Any:
        if isinstance(message, OriginateRequest) and not message.call_sid:
            self._names += 1
            name = f"{'Gespräch' if self._now_and_then(_OFTEN) else 'call'}-{self._names}-{self.dice.randrange(10**9)}"
            return attrs.evolve(message, call_sid=name)
        return message

    def reply(self, peer: Peer, method: MethodId, request: Message, reply: Any) -> Any:
        if isinstance(reply, OriginateResponse) and not reply.error_code:
            return attrs.evolve(reply, status=self.dice.choice(_WORDS))
        return reply

    def reply_bytes(self, method: MethodId, data: bytes) -> bytes:
        framed = len(data) >= 14 and struct.unpack_from("<I", data)[0] in (len(data), len(data) - 4)
        if not framed or not self._now_and_then(_OFTEN):
            return data
        # Bare where nothing is to be read from its length, newer fields in the frame where it has one.
        return data[8:] if self._now_and_then(0.5) else self._newer(data)

    def reply_after(self, peer: Peer, method: MethodId) -> float:
        return self.dice.uniform(0.0, 1.0) if self._now_and_then(_OFTEN) else 0.0

    # -- frames ---------------------------------------------------------------------------------------------------

    def _newer(self, data: bytes) -> bytes:
        """The frame with a field behind those that are known, and a version that says so."""
        length, method, version, compat, size = struct.unpack_from("<IIBBi", data)
        if length + 4 != len(data):
            return data  # an inclusive length: left alone
        extra = struct.pack("<i", 5) + b"newer"
        header = struct.pack("<IIBBi", length + len(extra), method, version + 1, compat, size + len(extra))
        return header + data[14:] + extra

    def frame(self, stream: object, method: MethodId, data: bytes) -> bytes:
        if self._now_and_then(_SELDOM):
            data = self._newer(data)
        if self._now_and_then(_SELDOM):
            data = encode_frame(self.dice.choice((1, 77, 4_000_000_000)), self.dice.randbytes(20)) + data
        if self._now_and_then(_SELDOM):
            size = self.dice.randrange(4)
            data = struct.pack("<I", size) + bytes(size) + data
        return data

    # -- calls ----------------------------------------------------------------------------------------------------

    def out(self, peer: Peer, message: Downward) -> Iterable[Downward]:
        if isinstance(message, CallEvent) and message.event_type == EventType.CHANNEL_ANSWER:
            call = self.hands.calls.get(message.call_sid)
            if call is not None and self._now_and_then(_OFTEN):
                for number in range(2 * self.dice.randrange(1, 6)):
                    self.hands.later(0.1 + 0.03 * number, lambda: self.hands.toggle_hold(call))
            if self._now_and_then(_OFTEN):
                self.hands.later(self.dice.uniform(0.05, 2.0), lambda: self.hands.reset_streams(peer))
        return (message,)
