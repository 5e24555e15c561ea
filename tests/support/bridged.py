"""Both sides of a bridge under test: a telephone that writes down what it hears, a model that does as it is told."""

from __future__ import annotations

import base64
import itertools
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from agentao_trio import ActiveCall, Codec, Session, open_session
from agentao_trio.errors import RealtimeError
from agentao_trio.gateway.sound import Packet
from agentao_trio.realtime import protocol
from agentao_trio.realtime.bridge import Bridge, bridge
from agentao_trio.realtime.sequence import Violation
from agentao_trio.realtime.session import RealtimeState
from agentao_trio.records import Record, RecordKind
from agentao_trio.testing import SimulatedGateway

__all__ = ["NUMBER", "Ear", "Scene", "StageModel", "said_by", "staged"]

NUMBER = "+15550100001"


@attrs.define(eq=False)
class Ear:
    """A telephone without anybody: it says what is put into ``to_say``, and nothing else."""

    heard: list[tuple[float, bytes]] = attrs.Factory(list)
    to_say: deque[bytes] = attrs.Factory(deque)
    cause: int | None = None

    def answered(self, call_sid: str, codec: Codec) -> None: ...

    def ended(self, cause: int) -> None:
        self.cause = cause

    def say(self) -> bytes | None:
        return self.to_say.popleft() if self.to_say else None

    def hear(self, packet: Packet | None) -> None:
        if packet is not None:
            self.heard.append((trio.current_time(), packet.payload))

    @property
    def sound(self) -> bytes:
        return b"".join(payload for _, payload in self.heard)

    @property
    def longest_gap(self) -> float:
        times = [at for at, _ in self.heard]
        return max((later - earlier for earlier, later in itertools.pairwise(times)), default=math.nan)


@attrs.define(eq=False)
class _Subscribed:
    model: StageModel
    key: type
    handler: Callable[[Any], None]

    def close(self) -> None:
        self.model.handlers[self.key].remove(self.handler)


@attrs.define(eq=False)
class StageModel:
    """What the bridge uses of a RealtimeSession; a test makes it say things and looks at what it was told."""

    config: protocol.SessionConfig = attrs.Factory(lambda: protocol.SessionConfig(turn_detection=protocol.ServerVad()))
    session_id: str = "sess_stage"
    state: RealtimeState = RealtimeState.CONNECTED
    told: list[Any] = attrs.Factory(list)
    audio: bytearray = attrs.Factory(bytearray)
    handlers: dict[type, list[Callable[[Any], None]]] = attrs.Factory(dict)
    refuse_format: bool = False
    #: Called with the parameters of each response that is asked for.
    when_asked: Callable[[Mapping[str, Any] | None], None] = lambda params: None
    _reconnecting: list[Callable[[str], object]] = attrs.Factory(list)
    _renewed: list[Callable[[str], object]] = attrs.Factory(list)
    _violated: list[Callable[[Violation], object]] = attrs.Factory(list)
    _events: int = 0

    # -- what the bridge does with it -------------------------------------------------------------------------------

    def subscribe(self, selector: type, handler: Callable[[Any], None]) -> _Subscribed:
        self.handlers.setdefault(selector, []).append(handler)
        return _Subscribed(self, selector, handler)

    async def update(self, config: protocol.SessionConfig) -> None:
        await trio.lowlevel.checkpoint()
        if self.refuse_format:
            raise RealtimeError("the format is not taken", code="echoed_otherwise")
        self.told.append(config)

    def append_audio(self, data: bytes) -> None:
        self.audio += data

    def send_nowait(self, event: protocol.ClientEvent) -> str:
        self.told.append(event)
        return "event"

    async def create_item(self, item: protocol.Item) -> str:
        await trio.sleep(0.01)
        self.told.append(item)
        return "item"

    async def create_response(self, params: Mapping[str, Any] | None = None) -> str:
        await trio.sleep(0.01)
        self.told.append(("response", dict(params or {})))
        self.when_asked(params)
        return "response"

    def on_reconnecting(self, hook: Callable[[str], object]) -> None:
        self._reconnecting.append(hook)

    def on_renewed(self, hook: Callable[[str], object]) -> None:
        self._renewed.append(hook)

    def on_violation(self, hook: Callable[[Violation], object]) -> None:
        self._violated.append(hook)

    # -- what a test does with it -----------------------------------------------------------------------------------

    def say(self, event: protocol.ServerEvent) -> None:
        self._events += 1
        event = attrs.evolve(event, event_id=event.event_id or f"server_{self._events}")
        for handler in tuple(self.handlers.get(type(event), ())):
            handler(event)

    def begin(self, response_id: str, item_id: str = "") -> None:
        self.say(protocol.ResponseCreated(response=protocol.Response(id=response_id)))
        if item_id:
            self.add_item(response_id, item_id)

    def add_item(self, response_id: str, item_id: str) -> None:
        item = protocol.Item(type="message", id=item_id, role="assistant", content=())
        self.say(protocol.ResponseOutputItemAdded(response_id=response_id, item=item))

    def speak(self, response_id: str, item_id: str, sound: bytes, words: str = "") -> None:
        delta = base64.b64encode(sound).decode()
        self.say(protocol.ResponseOutputAudioDelta(response_id=response_id, item_id=item_id, delta=delta))
        if words:
            self.say(protocol.ResponseOutputAudioTranscriptDelta(response_id=response_id, item_id=item_id, delta=words))

    def finish_item(self, response_id: str, item_id: str, words: str = "") -> None:
        part = protocol.ContentPart(type="output_audio", transcript=words)
        item = protocol.Item(type="message", id=item_id, role="assistant", status="completed", content=(part,))
        self.say(protocol.ResponseOutputAudioDone(response_id=response_id, item_id=item_id))
        self.say(protocol.ResponseOutputItemDone(response_id=response_id, item=item))

    def call_tool(self, response_id: str, name: str, arguments: str = "{}", call_id: str = "") -> None:
        item = protocol.Item(
            type="function_call", id=f"item_{name}", name=name, call_id=call_id or f"call_{name}", arguments=arguments
        )
        self.say(protocol.ResponseOutputItemDone(response_id=response_id, item=item))

    def finish(self, response_id: str, status: str = "completed", **more: Any) -> None:
        self.say(protocol.ResponseDone(response=protocol.Response(id=response_id, status=status, **more)))

    def reply(self, response_id: str, item_id: str, sound: bytes, words: str = "") -> None:
        """A whole response, all at once."""
        self.begin(response_id, item_id)
        self.speak(response_id, item_id, sound, words)
        self.finish_item(response_id, item_id, words)
        self.finish(response_id)

    def hears_speech(self, item_id: str = "item_caller") -> None:
        self.say(protocol.InputAudioBufferSpeechStarted(item_id=item_id))

    def hears_silence(self, item_id: str = "item_caller") -> None:
        self.say(protocol.InputAudioBufferSpeechStopped(item_id=item_id))

    def break_order(self, rule: str) -> None:
        for hook in self._violated:
            hook(Violation(event_id="e", wire_type="response.done", about="response r1", rule=rule))

    def lose_connection(self, reason: str = "1006") -> None:
        for hook in self._reconnecting:
            hook(reason)

    def renew_connection(self, reason: str = "lost") -> None:
        for hook in self._renewed:
            hook(reason)

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The parameters of the responses that were asked for."""
        return [told[1] for told in self.told if isinstance(told, tuple)]

    @property
    def outputs(self) -> list[tuple[str | None, str | None]]:
        """(call id, output) of tools."""
        items = [told for told in self.told if isinstance(told, protocol.Item)]
        return [(item.call_id, item.output) for item in items if item.type == "function_call_output"]

    @property
    def events(self) -> list[protocol.ClientEvent]:
        return [told for told in self.told if isinstance(told, protocol.ClientEvent)]


@attrs.define(eq=False)
class Scene:
    """A call, a model and the bridge between them."""

    session: Session
    call: ActiveCall
    ear: Ear
    model: StageModel
    talk: Bridge
    records: list[Record]

    def told(self, kind: RecordKind) -> list[Mapping[str, Any]]:
        """The data of the records of a kind."""
        return [record.data for record in self.records if record.kind is kind]


@asynccontextmanager
async def staged(
    gateway: SimulatedGateway,
    *,
    codec: Codec = Codec.PCMU,
    number: str = NUMBER,
    model: StageModel | None = None,
    **options: Any,
) -> AsyncIterator[Scene]:
    """A call with the embedded gateway, bridged to a model that does as it is told."""
    ear = Ear()
    gateway.server.model.handsets[number] = ear
    model = model or StageModel()
    records: list[Record] = []
    async with open_session(gateway.endpoint, **gateway.options()) as session:
        session.hub.attach(records.append)
        async with (
            await session.originate(number, trunk_id="main", codec=codec) as call,
            bridge(call, model, **options) as talk,  # type: ignore[arg-type]
        ):
            yield Scene(session, call, ear, model, talk, records)


def said_by(milliseconds: int, start: int = 0, *, per_ms: int = 8) -> bytes:
    """Sound of which no two packets are alike, and none is silence."""
    return bytes((start + index) % 251 for index in range(milliseconds * per_ms))
