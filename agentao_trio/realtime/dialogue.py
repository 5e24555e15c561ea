"""What a model's events mean for a call: audio to be said, words to be told of, interruptions, tools.

Theory of operation
-------------------
Every handler here is called by the task that reads from the model, in the order in which things happened, and never
waits. That is what makes a *barge-in* exact: when the server tells that the caller speaks, then within the same step
the audio that waits is dropped, the responses it belongs to are marked so that their late audio is dropped as well, and
the model is told how much of each item was heard. Items of which nothing was heard are deleted: there is no truncating
to nothing. The response itself is cancelled by the server, or by us where it was told not to (``interrupt_response``).

How much was heard is an estimate (:mod:`agentao_trio.realtime.playout`). Whether the server truncates by itself as well
is not the same everywhere; where it does, ``truncate=False`` leaves it to the server.
"""

from __future__ import annotations

import binascii
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import attrs
import trio

from agentao_trio.audio import PACKET_MS, Codec
from agentao_trio.call import ActiveCall
from agentao_trio.convert import Resampler
from agentao_trio.errors import AgentaoError
from agentao_trio.legible import legible
from agentao_trio.realtime import protocol
from agentao_trio.realtime.failures import Remedy, of_error
from agentao_trio.realtime.playout import AudioPart, Cut, ModelAudio, Played, Stretch
from agentao_trio.realtime.sequence import Violation
from agentao_trio.realtime.session import RealtimeSession
from agentao_trio.realtime.speech import Speaker
from agentao_trio.realtime.transcripts import Transcripts
from agentao_trio.realtime.turns import Turns
from agentao_trio.records import RecordKind, plain

__all__ = ["MODEL_RATE", "Dialogue"]

#: Samples per second of a model's 16-bit audio.
MODEL_RATE = 24_000
#: Items that have had no sound yet, and are remembered for that.
_MOST_UNHEARD = 256


@attrs.define(eq=False)
class Counts:
    """What a dialogue counts."""

    responses: int = 0
    barge_ins: int = 0
    malformed_audio: int = 0
    unsent_controls: int = 0


class Dialogue:
    """The model's side of one call.

    ``request_tool`` is given each function call with its response's id; ``caller_speaks`` is called when the caller
    begins to, and returns whether a response was being asked for. Neither may wait.
    """

    def __init__(
        self,
        call: ActiveCall,
        model: RealtimeSession,
        *,
        prebuffer_ms: float,
        bound_ms: float,
        truncate: bool,
        request_tool: Callable[[protocol.Item, str], None],
        caller_speaks: Callable[[], bool],
    ) -> None:
        self._call = call
        self._model = model
        self._truncate = truncate
        self._request_tool = request_tool
        self._caller_speaks = caller_speaks
        self._codec = call.codec
        self._resampler = self._new_resampler()
        self.audio: ModelAudio = ModelAudio(call.codec, prebuffer_ms=prebuffer_ms, bound_ms=bound_ms)
        self.speaker: Speaker = Speaker(call, self.audio, sent=self._sent)
        self.turns: Turns = Turns()
        self.transcripts: Transcripts = Transcripts()
        self.counts: Counts = Counts()
        #: Whether the caller is speaking, and whether the server owes an answer to what was said.
        self.caller_speaking: bool = False
        self.answer_due: bool = False
        self._crossing = False  # a response was asked for when the caller began to speak, and may begin all the same
        #: Notified whenever something has changed that somebody may wait for.
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        self._rules_broken: set[str] = set()
        self._speaking_item = ""
        self._unheard: OrderedDict[str, str] = OrderedDict()  # messages without any sound or text yet, by response

    def handlers(self) -> dict[type[protocol.ServerEvent], Callable[[Any], None]]:
        """Which events are to be handed to which method."""
        return {
            protocol.InputAudioBufferSpeechStarted: self._speech_started,
            protocol.InputAudioBufferSpeechStopped: self._speech_stopped,
            protocol.ConversationItemAdded: self._item_added,
            protocol.ConversationItemInputAudioTranscriptionDelta: self._caller_delta,
            protocol.ConversationItemInputAudioTranscriptionCompleted: self._caller_transcribed,
            protocol.ConversationItemInputAudioTranscriptionFailed: self._caller_not_transcribed,
            protocol.ResponseCreated: self._response_created,
            protocol.ResponseOutputItemAdded: self._output_item_added,
            protocol.ResponseOutputAudioDelta: self._audio_delta,
            protocol.ResponseOutputAudioDone: self._audio_done,
            protocol.ResponseOutputAudioTranscriptDelta: self._words,
            protocol.ResponseOutputTextDelta: self._words,
            protocol.ResponseOutputItemDone: self._output_item_done,
            protocol.ResponseDone: self._response_done,
            protocol.ErrorEvent: self._error,
        }

    # -- the caller -------------------------------------------------------------------------------------------------

    def _speech_started(self, event: protocol.InputAudioBufferSpeechStarted) -> None:
        turn_detection = self._model.config.turn_detection
        self.caller_speaking = True
        self.answer_due = getattr(turn_detection, "create_response", True) is not False
        if event.item_id:
            self.transcripts.mention(event.item_id)
        self._publish_speech("user", active=True, item_id=event.item_id)
        self.interrupt(cancel=getattr(turn_detection, "interrupt_response", True) is False)
        self._crossing = self._caller_speaks() and not self.turns.active
        self.changed.unpark_all()

    def _speech_stopped(self, event: protocol.InputAudioBufferSpeechStopped) -> None:
        self.caller_speaking = False
        self.turns.asked(trio.current_time())
        self._publish_speech("user", active=False, item_id=event.item_id)
        self.changed.unpark_all()

    def _item_added(self, event: protocol.ConversationItemAdded) -> None:
        item = event.item
        if not item.id or item.type != "message":
            return
        self.transcripts.mention(item.id)
        words = "".join(part.words for part in item.content or ())
        if item.role in ("user", "system") and words:
            self._tell(self.transcripts.complete(item.id, item.role, words))

    def _caller_delta(self, event: protocol.ConversationItemInputAudioTranscriptionDelta) -> None:
        self._tell_more(self.transcripts.delta(event.item_id, "user", event.delta or ""))

    def _caller_transcribed(self, event: protocol.ConversationItemInputAudioTranscriptionCompleted) -> None:
        self._tell(self.transcripts.complete(event.item_id, "user", event.transcript))
        if event.usage is not None:
            self._publish_usage(event.usage, transcription=event.item_id)

    def _caller_not_transcribed(self, event: protocol.ConversationItemInputAudioTranscriptionFailed) -> None:
        self._tell(self.transcripts.complete(event.item_id, "user"))
        self.publish_error(event.error.message or "what the caller said could not be transcribed", error=event.error)

    # -- responses --------------------------------------------------------------------------------------------------

    def _response_created(self, event: protocol.ResponseCreated) -> None:
        # What the server begins by itself is the answer to the caller.
        unwanted = self.caller_speaking and self._crossing
        self._crossing = False
        self.answer_due = self.answer_due and unwanted
        if event.response.id:
            self.counts.responses += 1
            self.turns.began(event.response.id)
            if unwanted:
                self.interrupt(cancel=True)
        self.changed.unpark_all()

    def _output_item_added(self, event: protocol.ResponseOutputItemAdded) -> None:
        item = event.item
        if not item.id or item.type != "message":
            return
        self.transcripts.mention(item.id)
        if self.audio.was_cut(event.response_id):
            self._forget_item(item.id)
            return
        self._unheard[item.id] = event.response_id
        if len(self._unheard) > _MOST_UNHEARD:
            self._unheard.popitem(last=False)

    def _audio_delta(self, event: protocol.ResponseOutputAudioDelta) -> None:
        if not event.item_id:
            return
        try:
            data = binascii.a2b_base64(event.delta, strict_mode=True)
        except ValueError:
            self.counts.malformed_audio += 1
            self.publish_error("a piece of the model's audio is no base64", source="media")
            return
        if self._resampler is not None:
            milliseconds = len(data) * 1000 / (2 * MODEL_RATE)
            if not self.audio.was_cut(event.response_id):
                data = self._resampler.feed(data)
        else:
            milliseconds = len(data) * PACKET_MS / self._codec.packet_bytes
        self._unheard.pop(event.item_id, None)
        part = AudioPart(event.item_id, event.content_index)
        if self.audio.receive(part, event.response_id, data, milliseconds):
            self.turns.received(event.response_id, part, trio.current_time())
            self.transcripts.speaking(event.item_id)
            self.speaker.wake()

    def _audio_done(self, event: protocol.ResponseOutputAudioDone) -> None:
        part = AudioPart(event.item_id, event.content_index)
        if self._resampler is not None and not self.audio.was_cut(event.response_id):
            self.audio.receive(part, event.response_id, self._resampler.flush(), 0)
        self._played(self.audio.finish(part))
        self.speaker.wake()

    def _words(self, event: protocol.ResponseOutputAudioTranscriptDelta | protocol.ResponseOutputTextDelta) -> None:
        if isinstance(event, protocol.ResponseOutputTextDelta):
            self._unheard.pop(event.item_id, None)
        self._tell_more(self.transcripts.delta(event.item_id, "assistant", event.delta))

    def _output_item_done(self, event: protocol.ResponseOutputItemDone) -> None:
        item = event.item
        if item.id and item.type == "message":
            words = "".join(part.words for part in item.content or ())
            self._tell(self.transcripts.complete(item.id, item.role or "assistant", words or None))
        elif item.type == "function_call" and item.status != "incomplete":
            self._request_tool(item, event.response_id)

    def _response_done(self, event: protocol.ResponseDone) -> None:
        response = event.response
        if not response.id:
            return
        status = response.status or "completed"
        details = response.status_details
        self._end_response(response.id, status)
        if response.usage is not None:
            self._publish_usage(response.usage, response_id=response.id)
        if status == "failed" or (status == "incomplete" and details is not None and details.reason):
            error = details.error if details is not None else None
            reason = details.reason if details is not None else None
            code = error.code if error is not None else None
            message = f"a response is {status}: {code or reason or 'for no reason given'}"
            self.publish_error(message, code=code, kind=error.type if error is not None else reason)

    def _error(self, event: protocol.ErrorEvent) -> None:
        if not event.error.event_id:
            self.answer_due = False  # it may stand for the answer, and nothing else would tell that there is none
            self.changed.unpark_all()
        if of_error(event.error) is not Remedy.IGNORE:
            self.publish_error(event.error.message or "the model's server tells of an error", error=event.error)

    def _end_response(self, response_id: str, status: str) -> None:
        for item_id in [item_id for item_id, of in self._unheard.items() if of == response_id]:
            del self._unheard[item_id]
        self._played(self.audio.finish_response(response_id))
        self._publish_turns(self.turns.ended(response_id, status, self.audio.statistics().underruns))
        self.speaker.wake()
        self.changed.unpark_all()

    # -- what is said -----------------------------------------------------------------------------------------------

    def _sent(self, stretch: Stretch, at: float, played: list[Played]) -> None:
        for part, _ in stretch.segments:
            self.turns.sent(part, at)
            if part.item_id != self._speaking_item:
                self._fall_silent()
                self._speaking_item = part.item_id
                self._publish_speech("assistant", active=True, item_id=part.item_id)
        self._played(played)

    def _played(self, played: list[Played]) -> None:
        for part in played:
            self._tell(self.transcripts.heard(part.part.item_id))
            if part.overflowed and self._truncate:
                self._truncate_item(part.part, part.kept_ms)
            self._publish_turns(self.turns.played(part.response_id, part.part, self.audio.statistics().underruns))
        if played and self.speaker.is_silent:
            self._fall_silent()
            self.changed.unpark_all()

    def _fall_silent(self) -> None:
        if self._speaking_item:
            self._publish_speech("assistant", active=False, item_id=self._speaking_item)
            self._speaking_item = ""

    # -- interruptions ----------------------------------------------------------------------------------------------

    def interrupt(self, *, cancel: bool) -> bool:
        """Stop what is being said, and what is about to be; ``cancel`` the server's response as well.

        Returns whether there was anything. Never waits.
        """
        now = trio.current_time()
        active = self.turns.active
        if not active and self.speaker.is_silent:
            return False
        cuts = self.speaker.interrupt(now, responses=active)
        self._resampler = self._new_resampler()
        self.counts.barge_ins += 1
        silence_ms = max(0.0, (self.speaker.last_sent_at + PACKET_MS / 1000 - now) * 1000)
        if self._truncate:
            self._tell_what_was_heard(cuts, active)
        if cancel and active:
            self._send(protocol.ResponseCancel(response_id=active[-1]))
        underruns = self.audio.statistics().underruns
        for cut in cuts:
            self._tell(self.transcripts.cut(cut.part.item_id, "assistant", cut.heard_ms))
        self._fall_silent()
        whole = [(response_id, None) for response_id in active]
        for response_id, part in [*((cut.response_id, cut.part) for cut in cuts), *whole]:
            self._publish_turns(self.turns.cut(response_id, part, silence_ms=silence_ms, underruns=underruns))
        self.changed.unpark_all()
        return True

    def _tell_what_was_heard(self, cuts: list[Cut], active: list[str]) -> None:
        heard = {cut.part.item_id for cut in cuts if cut.heard_ms}
        for cut in cuts:
            if cut.heard_ms:
                self._truncate_item(cut.part, cut.heard_ms)
            elif cut.part.item_id not in heard:
                heard.add(cut.part.item_id)  # once for all its parts
                self._send(protocol.ConversationItemDelete(item_id=cut.part.item_id))
        for item_id in [item_id for item_id, response_id in self._unheard.items() if response_id in active]:
            del self._unheard[item_id]
            self._forget_item(item_id)

    def _truncate_item(self, part: AudioPart, audio_end_ms: int) -> None:
        self._send(
            protocol.ConversationItemTruncate(
                item_id=part.item_id, content_index=part.content_index, audio_end_ms=audio_end_ms
            )
        )

    def _forget_item(self, item_id: str) -> None:
        self._tell(self.transcripts.cut(item_id, "assistant", 0))
        if self._truncate:
            self._send(protocol.ConversationItemDelete(item_id=item_id))

    def _send(self, event: protocol.ClientEvent) -> None:
        try:
            self._model.send_nowait(event)
        except (trio.WouldBlock, AgentaoError) as error:
            # No room in a queue of hundreds, or no connection: the model will believe that more was heard than was.
            self.counts.unsent_controls += 1
            self.publish_error(f"the model could not be told of an interruption: {error!r}")

    # -- the connection ---------------------------------------------------------------------------------------------

    def reconnecting(self, reason: str) -> bool:
        """The connection to the model is gone: responses that had not ended are over, and nobody speaks to it.

        Returns whether the caller is still to be answered: the next connection's server does not know of that.
        """
        owed = self.answer_due
        self.caller_speaking = self.answer_due = False
        for response_id in self.turns.active:
            self._end_response(response_id, "lost")
        self._call.publish(RecordKind.CONVERSATION, phase="reconnecting", reason=reason)
        return owed

    def renewed(self, reason: str) -> None:
        """The model's session goes on over another connection."""
        self.caller_speaking = self.answer_due = False
        for response_id in self.turns.active:
            self._end_response(response_id, "lost")
        self._call.publish(RecordKind.CONVERSATION, phase="renewed", reason=reason)
        self.changed.unpark_all()

    def close(self) -> None:
        """The conversation is over: fall silent, and tell what is left to tell."""
        now = trio.current_time()
        for cut in self.speaker.interrupt(now):
            self._tell(self.transcripts.cut(cut.part.item_id, "assistant", cut.heard_ms))
        self._fall_silent()
        for final in self.transcripts.unfinished():
            self._tell(final)
        for response_id in self.turns.active:
            self._publish_turns(self.turns.ended(response_id, "left", self.audio.statistics().underruns))
        self.changed.unpark_all()

    # -- records ----------------------------------------------------------------------------------------------------

    def violation(self, violation: Violation) -> None:
        """The server broke an order: tell once of each rule, as what is wrong with a server is so all the time."""
        if violation.rule not in self._rules_broken:
            self._rules_broken.add(violation.rule)
            self.publish_error(
                f"the model's server sent {legible(violation.wire_type, 64)} out of order: "
                f"{legible(violation.about, 128)} {violation.rule}",
                code="out_of_order",
            )

    def publish_error(
        self,
        message: str,
        *,
        error: protocol.ErrorDetails | None = None,
        source: str = "realtime",
        code: str | None = None,
        kind: str | None = None,
        fatal: bool = False,
    ) -> None:
        """Tell of something that went wrong."""
        if error is not None:
            code, kind = error.code, error.type
        data: dict[str, Any] = {"source": source, "message": message, "fatal": fatal, "code": code, "type": kind}
        self._call.publish(RecordKind.ERROR, data=lambda: _present(data))

    def _tell(self, transcript: dict[str, Any] | None) -> None:
        if transcript is not None:
            self._call.publish(RecordKind.TRANSCRIPT, **transcript)

    def _tell_more(self, transcript: Callable[[], dict[str, Any]] | None) -> None:
        if transcript is not None:
            self._call.publish(RecordKind.TRANSCRIPT, data=transcript)

    def _publish_speech(self, speaker: str, *, active: bool, item_id: str) -> None:
        data: dict[str, Any] = {"speaker": speaker, "active": active, "item_id": item_id or None}
        self._call.publish(RecordKind.SPEECH, data=lambda: _present(data))

    def _publish_turns(self, turns: list[dict[str, Any]]) -> None:
        for turn in turns:
            self._call.publish(RecordKind.TURN, **turn)

    def _publish_usage(
        self, usage: protocol.Usage | protocol.TranscriptionUsage, *, response_id: str = "", transcription: str = ""
    ) -> None:
        def data() -> dict[str, Any]:
            details: dict[str, Any] = _present(plain(usage))
            counted = {name: details.pop(name, None) for name in ("input_tokens", "output_tokens", "total_tokens")}
            details |= {"item_id": transcription} if transcription else {}
            return {**_present({"response_id": response_id or None, **counted}), "details": details}

        self._call.publish(RecordKind.USAGE, data=data)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _new_resampler(self) -> Resampler | None:
        return Resampler(MODEL_RATE, self._codec.clock_rate) if self._codec is Codec.PCM16 else None


def _present(value: Any) -> Any:
    """Without what is null."""
    if isinstance(value, dict):
        return {name: _present(inner) for name, inner in value.items() if inner is not None}
    return value
