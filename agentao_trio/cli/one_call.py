"""``agentao-trio call``: one call through any gateway, from dialling to the Q.850 cause."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import attrs
import trio

from agentao_trio.audio import Codec, from_pcm16
from agentao_trio.call import ActiveCall, CallEnding
from agentao_trio.cli.course import Course
from agentao_trio.cli.screen import LIVE, CallRow, Screen, call_table, state_of
from agentao_trio.cli.wav import WavRecorder
from agentao_trio.config import ClientConfig
from agentao_trio.errors import AgentaoError, CallEnded
from agentao_trio.messages import EventType
from agentao_trio.session import Session, open_session

__all__ = ["BUSY", "CUT_OFF", "FAILED", "UNANSWERED", "CallOptions", "OneCall", "exit_status"]

#: Seconds that the gateway has for confirming a hangup.
HANGUP_SECONDS = 5.0

#: Exit statuses that tell how a call ended; 0 is a call that was answered and cleared normally.
BUSY, UNANSWERED, FAILED, CUT_OFF = 3, 4, 5, 6

#: What the table of the one call shows.
FIGURES = tuple(heading for heading in LIVE if heading != "Far end")
#: Q.850 causes: cleared normally (0 is a gateway that does not say), and nobody there.
NORMAL, NOBODY = frozenset({0, 16, 31}), frozenset({18, 19, 20})

WORDS = {
    EventType.CHANNEL_CREATE: "the far end is being called",
    EventType.CHANNEL_HOLD: "the far end put the call on hold",
    EventType.CHANNEL_RESUME: "the call was resumed",
}


def exit_status(cause: int, *, answered: bool) -> int:
    """The exit status that tells of a Q.850 ``cause``."""
    if answered:
        return 0 if cause in NORMAL else CUT_OFF
    if cause == 17:
        return BUSY
    return UNANSWERED if cause in NORMAL | NOBODY else FAILED


@attrs.frozen(kw_only=True)
class CallOptions:
    """What was asked for. ``audio`` is 16-bit samples at 8 kHz, empty for a call that listens."""

    to: str
    gateway: ClientConfig
    trunk: str
    caller: str
    audio: bytes
    record: Path | None
    course: Course


class OneCall:
    """One call: made by :meth:`run`, told by :meth:`report`."""

    def __init__(self, options: CallOptions, screen: Screen) -> None:
        self._options = options
        self._screen = screen
        self._call: ActiveCall | None = None
        self._recorder: WavRecorder | None = None
        self._answered_at: float | None = None
        self._ending: CallEnding | None = None

    async def run(self) -> None:
        """Connect, call, play, record, hang up. Cancelled, it hangs up and closes; the recording is a whole file."""
        options, note = self._options, self._screen.note
        with contextlib.ExitStack() as files:
            if options.record is not None:
                self._recorder = files.enter_context(WavRecorder(options.record))
            note(f"connecting to {options.gateway.endpoint}")
            async with open_session(options.gateway.endpoint, **options.gateway.options()) as session:
                note(f"connected; calling {options.to} on trunk {options.trunk}")
                try:
                    async with await self._originate(session) as self._call:
                        await self._see_through(self._call)
                finally:
                    # Leaving the block has hung up, also when cancelled; how it ended is known without waiting.
                    if self._call is not None:
                        with trio.CancelScope(shield=True):
                            self._ending = ending = await self._call.wait_ended()
                        note(f"ended: {ending.q850_cause} {ending.cause}")

    async def _originate(self, session: Session) -> ActiveCall:
        options = self._options
        return await session.originate(
            options.to,
            trunk_id=options.trunk,
            call_from=options.caller,
            codec=Codec.PCMU,
            max_duration_ms=round(options.course.max_duration * 1000),
        )

    async def _see_through(self, call: ActiveCall) -> None:
        options = self._options
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._screen.watch, self.rows, FIGURES)
            nursery.start_soon(self._follow, call)
            if self._recorder is not None:
                nursery.start_soon(self._record, call, self._recorder)
            with contextlib.suppress(CallEnded):
                with trio.move_on_after(options.course.timeout or math.inf):
                    await call.wait_answered()
                    self._answered_at = trio.current_time()
                if self._answered_at is None:
                    self._screen.note(f"nobody answered within {options.course.timeout:g} s; hanging up")
                else:
                    with trio.move_on_after(options.course.max_duration or math.inf) as limit:
                        await self._talk(call)
                    if limit.cancelled_caught:
                        self._screen.note(f"the call has lasted {options.course.max_duration:g} s; hanging up")
            # A gateway that has gone away confirms nothing; leaving the call says so.
            with trio.move_on_after(HANGUP_SECONDS):
                await call.hangup()
            nursery.cancel_scope.cancel()

    async def _talk(self, call: ActiveCall) -> None:
        if not self._options.audio:
            self._screen.note("answered; listening")
            await call.wait_ended()
            return
        self._screen.note(f"answered; playing {len(self._options.audio) / 2 / Codec.PCMU.clock_rate:.1f} s of audio")
        await call.send_audio(from_pcm16(self._options.audio, Codec.PCMU))
        await call.wait_played()
        self._screen.note(f"played; listening for {self._options.course.tail:g} s more")
        with trio.move_on_after(self._options.course.tail):
            await call.wait_ended()

    async def _follow(self, call: ActiveCall) -> None:
        with contextlib.suppress(AgentaoError):  # how it ended is told by the call itself
            async for record in call.events():
                if record.event.event_type in WORDS:
                    self._screen.note(WORDS[EventType(record.event.event_type)])

    async def _record(self, call: ActiveCall, recorder: WavRecorder) -> None:
        async for frame in call.audio():
            recorder.write(frame)

    def rows(self) -> list[CallRow]:
        """The call as a table of one line."""
        call = self._call
        if call is None:
            return []
        talked = 0.0 if self._answered_at is None else trio.current_time() - self._answered_at
        return [
            CallRow(
                to=self._options.to,
                title="",
                state=state_of(call),
                seconds=talked,
                statistics=call.statistics(),
            )
        ]

    def report(self) -> int:
        """Print the figures of the call and return its exit status."""
        say = self._screen.say
        answered = self._answered_at is not None
        if answered:
            self._screen.console.print(call_table(self.rows(), FIGURES))
        if answered and self._ending is not None:
            event = self._ending.event
            # 0 is a gateway that has heard nothing, or does not say.
            mos = f", MOS {event.estimated_mos:.2f}" if event.packets_received and event.estimated_mos else ""
            say(
                f"The gateway counted {event.packets_received} packets from us, {event.packets_sent} to us, "
                f"{event.packets_lost} lost; jitter {event.jitter_ms:.1f} ms{mos}."
            )
        if self._recorder is not None:
            say(f"Recorded {self._recorder.packets} packets to {self._recorder.path}.")
            for codec in sorted(self._recorder.unknown_codecs):
                say(f"Audio in the codec {codec} could not be recorded.")
        return FAILED if self._ending is None else exit_status(self._ending.q850_cause, answered=answered)
