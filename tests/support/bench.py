"""A gateway's model on a bench: no network, a hand on the clock, and everything it sends laid out per connection."""

from __future__ import annotations

import io
import random
import struct
import wave
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from agentao_trio import messages as m
from agentao_trio.gateway.calls import Call
from agentao_trio.gateway.effects import Resume, SendAudio, SendEvents, Speak
from agentao_trio.gateway.model import GatewayModel
from agentao_trio.gateway.settings import GatewaySettings
from agentao_trio.gateway.silence import Silence
from agentao_trio.gateway.subscriptions import Peer
from agentao_trio.messages import CallEvent, EventType, Message, MethodId

SLOT = 0.02
EPOCH = 1_700_000_000.0

CREATE, ANSWER, HANGUP = EventType.CHANNEL_CREATE, EventType.CHANNEL_ANSWER, EventType.CHANNEL_HANGUP_COMPLETE
HOLD, RESUME = EventType.CHANNEL_HOLD, EventType.CHANNEL_RESUME
ECHO, TONE, RECORDING, SILENT, NOTHING = (f"+1555010000{n}" for n in range(1, 6))

METHOD_OF = {method.request: number for number, method in m.METHODS.items()}


def packet(n: int) -> bytes:
    """20 ms of PCMU that no other number has."""
    return bytes([n % 256]) * 160


def wav(seconds: float = 0.1, rate: int = 8_000, level: int = 1_000) -> bytes:
    """A mono 16-bit WAV file of a constant level."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(struct.pack("<h", level) * int(seconds * rate))
    return file.getvalue()


class Bench:
    """A model, one subscribed connection (``peer``), and the time, which moves in steps of 20 ms."""

    def __init__(
        self,
        settings: GatewaySettings | None = None,
        *,
        files: Mapping[str, bytes] | None = None,
        seed: int = 0,
        client_id: str = "me",
    ) -> None:
        self.now = 100.0
        self._slots = 0
        self.files = dict(files or {})
        self._ids = 0
        self.model = GatewayModel(
            settings=settings or GatewaySettings(),
            epoch=EPOCH,
            dice=random.Random(seed),
            new_id=self._new_id,
            read_file=self._read,
            recording=wav(),
        )
        self.events: dict[Peer, list[CallEvent]] = defaultdict(list)
        self.audio: dict[Peer, list[m.AudioFrame]] = defaultdict(list)
        self.peer = self.connect(client_id)
        self._numbers: dict[tuple[Peer, str], int] = defaultdict(int)
        self._speaking: list[Call] = []

    def _new_id(self) -> str:
        self._ids += 1
        return f"sid-{self._ids}"

    def _read(self, path: str) -> bytes:
        try:
            return self.files[path]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory", path) from None

    # -- what clients do ------------------------------------------------------------------------------------------

    def connect(self, client_id: str | None = None, tenant: str | None = None) -> Peer:
        """A new connection, subscribed if it has a client id."""
        peer = self.model.connected()
        if tenant is not None:
            peer.tenant = tenant
        if client_id is not None:
            self.ask(m.EventStreamRequest(client_id=client_id), peer)
        return peer

    def disconnect(self, peer: Peer) -> None:
        self.model.disconnected(peer, self.now)
        self._carry_out()

    def ask(self, request: Message, peer: Peer | None = None, method: MethodId | None = None) -> Any:
        """Send a request and return the reply: a message, or how there was none."""
        method = METHOD_OF[type(request)] if method is None else method
        reply = self.model.handle(peer or self.peer, method, request, self.now)
        assert isinstance(reply, Silence | m.METHODS[method].reply)
        self._carry_out()
        return reply

    def originate(self, to: str, call_sid: str = "call", peer: Peer | None = None, **fields: Any) -> Any:
        request = m.OriginateRequest(
            **{"trunk_id": "main", "to": to, "call_sid": call_sid, "default_app": m.DialplanAction.ANSWER, **fields}
        )
        return self.ask(request, peer)

    def dialplan(self, action: int, app_args: str = "", call_sid: str = "call", peer: Peer | None = None) -> Any:
        return self.ask(m.ExecuteDialplanRequest(call_sid=call_sid, action=action, app_args=app_args), peer)

    def answered(self, to: str, call_sid: str = "call", **fields: Any) -> None:
        """Place a call and let it be answered."""
        assert self.originate(to, call_sid, **fields).error_code == m.ErrorCode.SUCCESS
        self.run(0.3)
        assert self.types(call_sid)[:2] == [EventType.CHANNEL_CREATE, EventType.CHANNEL_ANSWER]

    def say(self, payload: bytes, call_sid: str = "call", peer: Peer | None = None, **fields: Any) -> None:
        """Send one packet, numbered, and let its slot pass."""
        peer = peer or self.peer
        number = self._numbers[peer, call_sid]
        self._numbers[peer, call_sid] += 1
        frame = m.AudioFrame(
            **{"call_sid": call_sid, "payload": payload, "codec": "PCMU", "sequence_number": number, **fields}
        )
        self.model.receive(peer, frame, self.now)
        self.run(SLOT)

    # -- time -----------------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let time pass, slot by slot."""
        for _ in range(round(seconds / SLOT)):
            self._slots += 1
            self.now = 100.0 + self._slots * SLOT
            # A microsecond late: sums of times come out a little above or below what they should be.
            self.model.advance(self.now + 1e-6)
            self._carry_out()
            for call in self._speaking:
                for peer, frame in self.model.slot(call):
                    self.audio[peer].append(frame)
            self._speaking = [call for call in self._speaking if call.has_slots]

    def _carry_out(self) -> None:
        for effect in self.model.take_effects():
            match effect:
                case SendAudio(peer, frame):
                    self.audio[peer].append(frame)
                case SendEvents(subscription) | Resume(subscription, _):
                    if isinstance(effect, Resume) and effect.previous is not None:
                        subscription.connection_lost(self.now)
                    while subscription.peer is not None and (entry := subscription.next_unsent()) is not None:
                        subscription.sent(entry)
                        subscription.acknowledged(entry, self.now)
                        self.events[subscription.peer].append(entry.event)
                case Speak(call):
                    self._speaking.append(call)

    # -- what clients see -----------------------------------------------------------------------------------------

    def types(self, call_sid: str = "call", peer: Peer | None = None) -> list[int]:
        return [event.event_type for event in self.events[peer or self.peer] if event.call_sid == call_sid]

    def last(self, call_sid: str = "call", peer: Peer | None = None) -> CallEvent:
        return [event for event in self.events[peer or self.peer] if event.call_sid == call_sid][-1]

    def frames(self, call_sid: str = "call", peer: Peer | None = None) -> list[m.AudioFrame]:
        return [frame for frame in self.audio[peer or self.peer] if frame.call_sid == call_sid]

    def heard(self, call_sid: str = "call", peer: Peer | None = None) -> list[bytes]:
        """The payloads, without the end of stream."""
        return [frame.payload for frame in self.frames(call_sid, peer) if not frame.end_of_stream]
