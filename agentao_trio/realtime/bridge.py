"""A phone call that talks to a model: the caller's audio to it, its audio to the caller, its tools in between.

::

    async with open_realtime(URL, config=config, api_key=key) as model:
        async with bridge(call, model, tools=[find_order, hangup()], greet=True) as talk:
            await talk.wait_ended()

Theory of operation
-------------------
*In what format.* G.711 goes through as it is, byte for byte, both ways. A PCM16 call has 16,000 samples a second and a
model 24,000: both ways pass a streaming resampler. The model's session is told on entering, and has to confirm.

*Up.* One task reads the call and appends to the model's buffer. Where the call gives nothing (lost packets, a telephone
that sends none in silence) silence is put in its place: the model's clock is its audio, and without silence it would
wait for the end of a sentence for ever.

*Down.* :mod:`~agentao_trio.realtime.dialogue` reads the model's events and :mod:`~agentao_trio.realtime.speech` says
its audio at the call's pace. Nearly all of it waits here, where it can be taken back.

*Responses.* The server answers the caller by itself. A response is asked for here only after tools, keys and for the
greeting: when no other is active, and not while an answer to the caller is due, which will include the news anyway.

The bridge is over when the call is, when ``max_seconds`` are, or when its block is left; it never ends the call itself,
unless the model uses a tool that does. What ends the model's session for good leaves the block of ``open_realtime`` as
an exception: nothing is said any more, and the call is its owner's to deal with.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import attrs
import trio

from agentao_trio.audio import PACKET_MS, Codec
from agentao_trio.call import ActiveCall
from agentao_trio.convert import LONGEST_GAP
from agentao_trio.detect import DtmfDetector
from agentao_trio.errors import CallError, RealtimeError, TransportError
from agentao_trio.realtime.dialogue import MODEL_RATE, Dialogue
from agentao_trio.realtime.playout import PlayoutStatistics
from agentao_trio.realtime.protocol import AudioFormat, FunctionTool, Item, SessionConfig
from agentao_trio.realtime.responses import Responses
from agentao_trio.realtime.sequence import Violation
from agentao_trio.realtime.session import RealtimeSession, RealtimeState
from agentao_trio.realtime.tool_calls import ToolCalls, ToolStatistics
from agentao_trio.realtime.tools import Tool, as_tool
from agentao_trio.records import RecordKind
from agentao_trio.services import task_nursery

__all__ = ["Bridge", "BridgeEnding", "BridgeStatistics", "bridge"]

#: Seconds after which it is looked whether nothing has come from the far end. Silence is made up when two such looks in
#: a row found nothing: what is late by less was held up on the way, or by a stall of this program, after which the
#: first look comes before what has arrived is read. Silence in the middle of a word would make two turns of it.
QUIET_SECONDS = 0.1
#: Seconds after a key until the keys so far are taken to be all of them; ``#`` ends them at once.
KEY_PAUSE = 1.5
#: Keys that are told at a time.
_MOST_KEYS = 64

#: What an iterator gives when it is at its end.
_NO_MORE: Final[Any] = object()

_FORMATS: Mapping[Codec, AudioFormat] = {
    Codec.PCMU: AudioFormat.PCMU,
    Codec.PCMA: AudioFormat.PCMA,
    Codec.PCM16: AudioFormat.PCM24K,
}


@attrs.frozen(kw_only=True)
class BridgeEnding:
    """Why a bridge is over, and how long it lasted."""

    #: ``hangup`` (of the call, by whomever), ``lost`` (the call ended without the gateway's word), ``time``
    #: (``max_seconds``), ``left`` (its block was), ``model`` (its session is over) or ``refused`` (by the model).
    reason: str
    seconds: float


@attrs.frozen(kw_only=True)
class BridgeStatistics:
    """What a bridge has done so far."""

    playout: PlayoutStatistics
    tools: ToolStatistics
    responses: int
    barge_ins: int
    #: Responses that were not asked for, because the caller was speaking or about to be answered.
    suppressed: int
    #: The caller's audio given to the model, and silence made up within it, in milliseconds.
    caller_ms: int
    made_up_ms: int
    #: Packets of the caller that came faster than they were read.
    caller_dropped: int
    #: How often the call ran out of packets in the middle of an utterance, because this program was late.
    ran_dry: int
    malformed_audio: int
    #: Truncations and the like for which there was no room or no connection.
    unsent_controls: int


class Bridge:
    """A call and a model in conversation. Made by :func:`bridge`."""

    def __init__(
        self,
        call: ActiveCall,
        model: RealtimeSession,
        *,
        tools: Sequence[Tool],
        truncate: bool,
        prebuffer_ms: float,
        bound_seconds: float,
    ) -> None:
        self._call = call
        self._model = model
        self._tools = tools
        self._tool_calls: ToolCalls | None = None
        self._dialogue = Dialogue(
            call,
            model,
            prebuffer_ms=prebuffer_ms,
            bound_ms=bound_seconds * 1000,
            truncate=truncate,
            request_tool=self._request_tool,
            caller_speaks=lambda: self._responses.caller_speaks(),
        )
        self._responses = Responses(call, model, self._dialogue)
        self._began = trio.current_time()
        self._ending: BridgeEnding | None = None
        self._over = trio.Event()
        self._caller_ms = self._made_up_ms = self._caller_dropped = 0

    def __repr__(self) -> str:
        state = self._ending.reason if self._ending else "going on"
        return f"<Bridge of {self._call!r} and {self._model!r}, {state}>"

    @property
    def ending(self) -> BridgeEnding | None:
        """How it ended; None while it goes on."""
        return self._ending

    async def wait_ended(self) -> BridgeEnding:
        """Wait until the call is over, or the time. Cancelling it changes nothing."""
        await self._over.wait()
        assert self._ending is not None
        return self._ending

    def say(self, instructions: str) -> None:
        """Have the model say something when it can; ``instructions`` are for this one response.

        Dropped where the caller is speaking, or has spoken and is to be answered.
        """
        self._responses.want({"instructions": instructions})

    def interrupt(self) -> bool:
        """Stop what the model is saying or about to say, as if the caller had spoken. Returns whether there was any."""
        return self._ending is None and self._dialogue.interrupt(cancel=True)

    def statistics(self) -> BridgeStatistics:
        """A snapshot."""
        assert self._tool_calls is not None  # nobody has a bridge before it is open
        return BridgeStatistics(
            playout=self._dialogue.audio.statistics(),
            tools=self._tool_calls.statistics(),
            suppressed=self._responses.suppressed,
            caller_ms=self._caller_ms,
            made_up_ms=self._made_up_ms,
            caller_dropped=self._caller_dropped,
            ran_dry=self._dialogue.speaker.ran_dry,
            **attrs.asdict(self._dialogue.counts),
        )

    # -- its life ---------------------------------------------------------------------------------------------------

    async def _run(
        self,
        *,
        greet: bool | str,
        keypad: bool,
        max_seconds: float,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Be open, and run until it is over."""
        reason = ""
        try:
            # Nothing is heard of the model any more when the nursery begins to close, which takes no new tasks then.
            async with task_nursery() as nursery:
                with contextlib.ExitStack() as subscriptions:
                    self._tool_calls = ToolCalls(
                        self._tools, line=self._call, conversation=self._responses, nursery=nursery
                    )
                    await self._open(subscriptions)
                    task_status.started()
                    nursery.start_soon(self._listen)
                    nursery.start_soon(self._dialogue.speaker.run)
                    nursery.start_soon(self._responses.run)
                    if keypad:
                        nursery.start_soon(self._watch_keys)
                    if greet:
                        self._responses.want({"instructions": greet} if isinstance(greet, str) else {})
                    with trio.move_on_after(max_seconds) as patience:
                        reason = await self._end_of_the_call()
                    if patience.cancelled_caught:
                        reason = "time"
        except RealtimeError as error:
            reason = "refused"
            self._dialogue.publish_error(str(error), code=error.code, kind=error.type, fatal=True)
            raise
        finally:
            if not reason and self._model.state is RealtimeState.CLOSED:
                reason = "model"
                self._dialogue.publish_error("the session with the model is over", fatal=True)
            self._end(reason or "left")

    async def _open(self, subscriptions: contextlib.ExitStack) -> None:
        """Have the model speak the call's format, and know its tools."""
        model, publish = self._model, self._publish
        publish("connecting", **self._names())
        for event, handler in self._dialogue.handlers().items():
            subscriptions.callback(model.subscribe(event, handler).close)
        audio_format = _FORMATS[self._call.codec]
        config = SessionConfig(input_format=audio_format, output_format=audio_format)
        if self._tools:
            known = [
                FunctionTool(name=tool.name, description=tool.description, parameters=tool.parameters)
                for tool in self._tools
            ]
            config = attrs.evolve(config, tools=known)
        await model.update(config)
        model.on_reconnecting(self._reconnecting)
        model.on_renewed(self._renewed)
        model.on_violation(self._violated)
        publish("connected", **self._names(), session_id=model.session_id)
        publish("started", conversation_id=model.session_id)

    def _names(self) -> dict[str, str]:
        config = self._model.config
        names = {"provider": "realtime", "model": config.model, "voice": config.voice}
        return {name: value for name, value in names.items() if isinstance(value, str) and value}

    def _publish(self, phase: str, **data: str) -> None:
        self._call.publish(RecordKind.CONVERSATION, data=lambda: {"phase": phase, **data})

    def _reconnecting(self, reason: str) -> None:
        if self._ending is None and self._dialogue.reconnecting(reason):
            self._responses.want()

    def _renewed(self, reason: str) -> None:
        if self._ending is None:
            self._dialogue.renewed(reason)

    def _violated(self, violation: Violation) -> None:
        if self._ending is None:
            self._dialogue.violation(violation)

    def _end(self, reason: str) -> None:
        """It is over, and all its tasks are."""
        self._dialogue.close()
        self._ending = BridgeEnding(reason=reason, seconds=trio.current_time() - self._began)
        self._publish("ended", reason=reason, conversation_id=self._model.session_id)
        self._over.set()

    async def _end_of_the_call(self) -> str:
        try:
            await self._call.wait_ended()
        except (CallError, TransportError):
            return "lost"
        return "hangup"

    # -- the caller -------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Give the caller's audio to the model, with silence for what is missing."""
        codec = self._call.codec
        if codec is Codec.PCM16:
            audio = self._call.audio(rate=MODEL_RATE)
            silence = bytes(2 * MODEL_RATE * PACKET_MS // 1000)
        else:
            audio, silence = self._call.audio(codec=codec), codec.silence
        per_look = round(QUIET_SECONDS * 1000 / PACKET_MS)
        looks = made_up = 0  # how many found nothing, and packets of silence, since the last that came
        with contextlib.closing(audio):
            while True:
                # One scope for as long as the caller is heard: a new one for each packet costs more than the packet.
                with trio.CancelScope(deadline=trio.current_time() + QUIET_SECONDS) as patience:
                    async for frame in audio:
                        patience.deadline = trio.current_time() + QUIET_SECONDS
                        self._make_up(min(max(0, frame.lost_before - made_up), LONGEST_GAP), silence)
                        looks = made_up = 0
                        self._caller_ms += PACKET_MS
                        self._caller_dropped = audio.dropped
                        self._model.append_audio(frame.payload)
                    return
                looks += 1
                if looks > 1:
                    self._make_up(looks * per_look - made_up, silence)
                    made_up = looks * per_look

    def _make_up(self, packets: int, silence: bytes) -> None:
        if packets:
            self._made_up_ms += packets * PACKET_MS
            self._model.append_audio(silence * packets)

    async def _watch_keys(self) -> None:
        """Gather the keys the caller presses, and tell the model of them."""
        keys = ""
        with contextlib.closing(self._call.detect(DtmfDetector(rate=self._call.codec.clock_rate))) as found:
            while True:
                digit = None
                with trio.move_on_after(KEY_PAUSE if keys else math.inf):
                    digit = await anext(found, _NO_MORE)
                if digit is _NO_MORE:
                    return
                if digit is not None:
                    self.interrupt()
                    keys += digit.digit
                if digit is None or digit.digit == "#" or len(keys) >= _MOST_KEYS:
                    await self._responses.caller_pressed(keys)
                    keys = ""

    def _request_tool(self, item: Item, response_id: str) -> None:
        assert self._tool_calls is not None  # handlers are attached later
        if item.call_id:
            self._tool_calls.request(
                name=item.name or "",
                tool_call_id=item.call_id,
                response_id=response_id,
                arguments=item.arguments or "",
            )


@contextlib.asynccontextmanager
async def bridge(
    call: ActiveCall,
    model: RealtimeSession,
    *,
    tools: Iterable[Tool | Callable[..., Any]] = (),
    greet: bool | str = False,
    keypad: bool = False,
    truncate: bool = True,
    max_seconds: float = math.inf,
    prebuffer_ms: float = 60,
    bound_seconds: float = 300,
) -> AsyncIterator[Bridge]:
    """Have ``call`` and ``model`` talk to each other while the block runs. Waits for the call's answer first.

    ``tools`` are functions, or :class:`~agentao_trio.realtime.tools.Tool`, that the model may use; without any, those
    that the session was configured with stay, and are refused. With ``greet`` the model speaks first, by instructions
    of its own if it is a string. With ``keypad`` the keys that the caller presses are found in the audio and told to
    the model, and a key interrupts it like speech. ``truncate`` tells the model how much of an interrupted item was
    heard; switch it off for a server that does so itself. ``max_seconds`` ends the conversation, and not the call.

    ``prebuffer_ms`` of audio, 40 to 100, are gathered before an utterance begins. At most ``bound_seconds`` of audio
    wait to be said; what comes beyond that is dropped, counted, and the model told that it was not heard.

    Leaving the block, by cancellation too, stops what is being said and cancels the tools; a farewell that is being
    carried out is finished under a short shield. Afterwards the session can be used for something else.

    Raises :class:`CallEnded` for a call that ends before its answer, :class:`RealtimeError` where the model does not
    take the call's format or the tools, ValueError for two tools of one name, and :class:`ModuleNotFoundError` for a
    PCM16 call without the extra ``audio``.
    """
    known = tuple(map(as_tool, tools))
    names = [each.name for each in known]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two tools are called {twice[0]!r}")
    await call.wait_answered()
    made = Bridge(call, model, tools=known, truncate=truncate, prebuffer_ms=prebuffer_ms, bound_seconds=bound_seconds)
    async with task_nursery() as nursery:
        await nursery.start(partial(made._run, greet=greet, keypad=keypad, max_seconds=max_seconds))
        yield made
