"""The demonstration: an embedded gateway, real UDP and TLS on loopback, and calls to many of its far ends at once.

Every call says the same recording of human speech. What comes back is written to a WAV file, and what happened is held
against what had to happen: a demonstration that cannot fail shows nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from itertools import chain, islice, repeat
from pathlib import Path

import attrs
import trio

from agentao_trio.audio import Codec, from_pcm16
from agentao_trio.call import ActiveCall, CallEnding
from agentao_trio.cli.running import FAILURE, about, until_signalled
from agentao_trio.cli.screen import SUMMARY, CallRow, Screen, call_table, state_of
from agentao_trio.cli.wav import SPEECH, WavRecorder, read_wav
from agentao_trio.errors import AgentaoError, CallEnded
from agentao_trio.gateway import Gateway, open_gateway
from agentao_trio.messages import EventType
from agentao_trio.pacing import ClockStatistics
from agentao_trio.session import Session, open_session

__all__ = ["PLANS", "Demo", "DemoCall", "Plan", "speech"]

#: Seconds that the last of an echo may take to come back; and how long the others are listened to after our last word.
ECHO_SECONDS, LINGER_SECONDS = 3.0, 0.5
#: Seconds after which a far end that should have hung up by now is hung up on.
STUCK_SECONDS = 5.0


@attrs.frozen(kw_only=True)
class Plan:
    """One far end of the embedded gateway, and what has to hold for a call to it."""

    number: str
    title: str
    answers: bool = True
    #: Whether the far end ends the call; otherwise we do.
    hangs_up: bool = False
    #: The Q.850 cause that the call has to end with.
    cause: int = 16
    #: What comes back is what was said, byte for byte.
    echoes: bool = False
    #: It puts us on hold for a while.
    holds: bool = False
    #: Packets get lost on the way back, on purpose.
    lossy: bool = False


ECHO = Plan(number="+15550100001", title="echo", echoes=True)

#: In the order in which the demonstration takes them. Whoever asks for more calls gets more echoes.
PLANS: Sequence[Plan] = (
    ECHO,
    Plan(number="+15550100003", title="recording"),
    Plan(number="+15550100002", title="tone"),
    Plan(number="+15550100004", title="silence"),
    Plan(number="+15550100006", title="hold", holds=True),
    Plan(number="+15550100105", title="5 % loss", lossy=True),
    Plan(number="+15550100016", title="hangs up", hangs_up=True),
    Plan(number="+15550100017", title="busy", answers=False, hangs_up=True, cause=17),
    Plan(number="+15550100018", title="no user", answers=False, hangs_up=True, cause=18),
    Plan(number="+15550100019", title="no answer", answers=False, hangs_up=True, cause=19),
)


class DemoCall:
    """One call of the demonstration: its plan, and what became of it."""

    def __init__(self, plan: Plan, recording: Path) -> None:
        self.plan = plan
        #: Where what the far end says goes; there is no such file for a call that is not answered.
        self.recording = recording
        self.call: ActiveCall | None = None
        self.ending: CallEnding | None = None
        #: Why there is no ending, where the call failed in some other way.
        self.failure: str = ""
        self.heard: bytearray = bytearray()
        self.was_held: bool = False
        self.recorded: bool = False
        self._heard_all = trio.Event()
        self._began = trio.current_time()
        self._ended: float | None = None

    def row(self) -> CallRow:
        """The call as a line of the table."""
        until = trio.current_time() if self._ended is None else self._ended
        if self._ended is not None:
            state = "failed" if self.ending is None else f"ended ({self.ending.q850_cause})"
        else:
            state = "dialling" if self.call is None else state_of(self.call)
        return CallRow(
            to=self.plan.number,
            title=self.plan.title,
            state=state,
            seconds=until - self._began,
            statistics=self.call.statistics() if self.call is not None else None,
        )

    def summary(self, said: bytes) -> CallRow:
        """The call as a line of the final table."""
        check = "FAILED" if any(self.problems(said)) else "ok"
        return attrs.evolve(self.row(), state=self.outcome(), check=check)

    def outcome(self) -> str:
        """How the call ended, in words."""
        if self.ending is not None:
            return f"{self.ending.q850_cause} {self.ending.cause}"
        return self.failure or "never placed"

    def problems(self, said: bytes) -> Iterator[str]:
        """What does not hold, in words; nothing where all is as it should be."""
        plan, ending = self.plan, self.ending
        if ending is None:
            yield self.outcome()
            return
        if ending.q850_cause != plan.cause:
            yield f"ended with cause {self.outcome()} instead of {plan.cause}"
        if not plan.answers:
            return
        figures = ending.statistics
        if not figures.packets_received:
            yield "nothing came back"
        if plan.holds and not self.was_held:
            yield "was never on hold"
        if plan.lossy and not figures.packets_lost:
            yield "no packet was lost, although some had to be"
        if not plan.lossy and figures.packets_lost:
            yield f"{figures.packets_lost} packets were lost"
        if plan.echoes and not self.bit_exact(said):
            yield f"what came back ({len(self.heard)} bytes) is not what was said ({len(said)} bytes)"

    def bit_exact(self, said: bytes) -> bool:
        """Whether everything that was said came back, byte for byte and in order, and nothing else did."""
        return self.heard == said

    # -- the call itself ------------------------------------------------------------------------------------------

    async def run(self, session: Session, said: bytes, screen: Screen, background: trio.Nursery) -> None:
        """Place the call, say ``said`` (PCMU), record what comes back, and see the call to its end.

        What goes wrong with the call is kept for :meth:`problems`; its siblings go on. Cancelled, it hangs up.
        """
        try:
            try:
                async with await session.originate(self.plan.number, trunk_id="main", codec=Codec.PCMU) as self.call:
                    screen.step(f"{self.plan.title}: calling {self.plan.number}")
                    background.start_soon(self._follow, self.call, screen)
                    await self._talk(self.call, said, background)
            finally:
                # Leaving the block has hung up, also when this was cancelled; how it ended is known without waiting.
                self._ended = trio.current_time()
                if self.call is not None:
                    with trio.CancelScope(shield=True):
                        self.ending = await self.call.wait_ended()
        except AgentaoError as error:
            self.failure = str(error)
        screen.step(f"{self.plan.title}: ended, {self.outcome()}")

    async def _talk(self, call: ActiveCall, said: bytes, background: trio.Nursery) -> None:
        try:
            await call.wait_answered()
            background.start_soon(self._record, call, len(said) if self.plan.echoes else math.inf)
            await call.send_audio(said)
            await call.wait_played()
            with trio.move_on_after(ECHO_SECONDS if self.plan.echoes else LINGER_SECONDS):
                await self._heard_all.wait()
        except CallEnded:
            return  # whether that was to happen is for problems() to say
        if self.plan.hangs_up:
            with trio.move_on_after(STUCK_SECONDS):
                await call.wait_ended()

    async def _record(self, call: ActiveCall, expected: float) -> None:
        with WavRecorder(self.recording) as recorder:
            self.recorded = True
            async for frame in call.audio():
                recorder.write(frame)
                self.heard += frame.payload
                if len(self.heard) >= expected:
                    self._heard_all.set()

    async def _follow(self, call: ActiveCall, screen: Screen) -> None:
        words = {
            EventType.CHANNEL_ANSWER: "answered",
            EventType.CHANNEL_HOLD: "on hold",
            EventType.CHANNEL_RESUME: "resumed",
        }
        try:
            async for record in call.events():
                self.was_held |= record.event.event_type == EventType.CHANNEL_HOLD
                if record.event.event_type in words:
                    screen.step(f"{self.plan.title}: {words[EventType(record.event.event_type)]}")
        except AgentaoError:
            pass  # the call's own task tells how it ended


def speech(seconds: float | None) -> bytes:
    """The recording that every call says, as PCMU: all of it, or ``seconds`` of it, from the start again when over."""
    whole = from_pcm16(read_wav(SPEECH), Codec.PCMU)
    if seconds is None:
        return whole
    packets = max(1, round(seconds * 1000 / 20))
    size = packets * Codec.PCMU.packet_bytes
    return bytes(islice(chain.from_iterable(repeat(whole)), size))


class Demo:
    """Ten calls, or more or fewer, and what became of them. Raises UsageError for a directory that cannot be made."""

    def __init__(self, *, calls: int, seconds: float | None, directory: Path, screen: Screen) -> None:
        with about("--record"):
            directory.mkdir(parents=True, exist_ok=True)
        self.said: bytes = speech(seconds)
        self._directory = directory
        self._screen = screen
        self._clock: ClockStatistics | None = None
        self.calls: list[DemoCall] = [
            DemoCall(plan, directory / f"{number:02}-{plan.title.replace('%', 'percent').replace(' ', '-')}.wav")
            for number, plan in enumerate(islice(chain(PLANS, repeat(ECHO)), calls), 1)
        ]

    async def run(self) -> int:
        """Do it all, and print the summary. Returns the exit status."""
        # Signals end what the gateway serves, and not the gateway: it has hangups to confirm.
        async with open_gateway() as gateway:
            self._screen.step(f"a gateway is listening on {gateway.endpoint}")
            interrupted = await until_signalled(lambda: self._make_calls(gateway))
        columns = SUMMARY[:-1] if interrupted else SUMMARY
        self._screen.console.print(call_table([call.summary(self.said) for call in self.calls], columns))
        self._tell_recordings()
        if interrupted:
            return interrupted
        self._tell_figures()
        return FAILURE if self._complain() else 0

    async def _make_calls(self, gateway: Gateway) -> None:
        async with open_session(gateway.endpoint, tls=gateway.tls) as session:
            try:
                async with trio.open_nursery() as background:
                    background.start_soon(self._screen.watch, self._rows)
                    async with trio.open_nursery() as calls:
                        for call in self.calls:
                            calls.start_soon(call.run, session, self.said, self._screen, background)
                    background.cancel_scope.cancel()
            finally:
                self._clock = session.statistics().clock

    def _rows(self) -> list[CallRow]:
        return [call.row() for call in self.calls]

    def _tell_recordings(self) -> None:
        recorded = sum(call.recorded for call in self.calls)
        self._screen.say(f"Recordings: {recorded} WAV files in {self._directory}{os.sep}")

    def _tell_figures(self) -> None:
        say = self._screen.say
        ended = [call for call in self.calls if call.ending is not None]
        say(f"Calls ended: {len(ended)} of {len(self.calls)}.")
        echoes = [call for call in self.calls if call.plan.echoes]
        exact = sum(call.bit_exact(self.said) for call in echoes)
        say(f"Echoes bit-exact: {exact} of {len(echoes)}, {len(self.said)} bytes of speech in each.")
        lost = sum(call.ending.statistics.packets_lost for call in ended if call.ending and not call.plan.lossy)
        say(f"Packets lost where none may get lost: {lost}.")
        if self._clock is not None:
            late = (self._clock.lateness_p50, self._clock.lateness_p99, self._clock.lateness_max)
            p50, p99, most = (1000 * seconds for seconds in late)
            say(f"The packet clock was late by {p50:.1f} ms (median), {p99:.1f} ms (p99), {most:.1f} ms (at most).")

    def _complain(self) -> bool:
        failed = [(call, problem) for call in self.calls for problem in call.problems(self.said)]
        for call, problem in failed:
            self._screen.say(f"FAILED: {call.plan.title} ({call.plan.number}): {problem}", style="bold red")
        if not failed:
            self._screen.say("Everything is as it has to be.", style="bold green")
        return bool(failed)
