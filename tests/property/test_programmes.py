"""Random programmes of legal and illegal commands on several calls at once, against a model of a page.

One example is one ``trio.run``: real QUIC and TLS on the in-memory network, virtual time. The model knows only what the
documents say: when a call is answered, what each state allows, which events must have come.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from agentao_trio import (
    ActiveCall,
    AgentaoError,
    CallAnswerFailed,
    CallEnded,
    CallState,
    CallStateError,
    CommandRejected,
    EventType,
    LocalProtocolError,
    Session,
)
from agentao_trio.gateway import GatewaySettings
from agentao_trio.messages import ErrorCode
from tests.support.simulated import simulated

GATEWAY = GatewaySettings()
#: A step lasts long enough for whatever it set off to have arrived, and never ends near a far end's own deadline.
STEP = 0.11
ECHO, BUSY, REFUSED = "+15550100001", "+15550100017", "+15550100403"


@attrs.define
class Expected:
    """What is known of one call, and nothing of how."""

    to: str
    placed_at: float
    events: list[int] = attrs.field(factory=lambda: [EventType.CHANNEL_CREATE])
    cause: int = 0
    sent: int = 0

    def advance(self, now: float) -> None:
        """Let the far end do what it does by itself."""
        after = now - self.placed_at
        if self.state == "pending" and self.to == ECHO and after >= GATEWAY.ring:
            self.events.append(EventType.CHANNEL_ANSWER)
        if self.state == "pending" and self.to == BUSY and after >= GATEWAY.busy_after:
            self.end(17)

    def end(self, cause: int) -> None:
        self.events.append(EventType.CHANNEL_HANGUP_COMPLETE)
        self.cause = cause

    @property
    def state(self) -> str:
        return {
            EventType.CHANNEL_CREATE: "pending",
            EventType.CHANNEL_ANSWER: "answered",
            EventType.CHANNEL_RESUME: "answered",
            EventType.CHANNEL_HOLD: "held",
            EventType.CHANNEL_HANGUP_COMPLETE: "ended",
        }[EventType(self.events[-1])]

    def outcome(self, verb: str) -> type[AgentaoError] | None:
        """Which error a command must raise now; None where it must not. Records what the command brings about."""
        if self.state == "ended":
            return None if verb == "hangup" else CallEnded
        if verb == "hangup":
            self.end(16)
            return None
        if verb == "answer":
            # These calls are ours: the gateway lets nobody here answer them.
            return CallAnswerFailed if self.state == "pending" else CallStateError
        if self.state == "pending":
            return CallStateError
        if verb.startswith("bad "):
            return LocalProtocolError
        if verb in ("hold", "music_on_hold"):
            if self.state == "held":
                return CommandRejected
            self.events.append(EventType.CHANNEL_HOLD)
        if verb == "unhold":
            if self.state == "answered":
                return CommandRejected
            self.events.append(EventType.CHANNEL_RESUME)
        if verb == "bridge to itself":
            return CommandRejected
        if verb == "send_audio":
            self.sent += 2
        return None


VERBS = {
    "hangup": lambda call: call.hangup(),
    "answer": lambda call: call.answer(),
    "hold": lambda call: call.hold(),
    "unhold": lambda call: call.unhold(),
    "music_on_hold": lambda call: call.music_on_hold(),
    "mute": lambda call: call.mute(wire=True),
    "unmute": lambda call: call.unmute(),
    "park": lambda call: call.park(),
    "send_dtmf": lambda call: call.send_dtmf("5", duration_ms=40),
    "send_audio": lambda call: call.send_audio(b"a" * 320),
    "bridge to itself": lambda call: call.bridge(call),
    "bad transfer": lambda call: call.transfer("five five five"),
    "bad dtmf": lambda call: call.send_dtmf("5x"),
    "bad playback": lambda call: call.playback("beep.wav"),
}

step = st.one_of(
    st.tuples(st.just("originate"), st.sampled_from([ECHO, ECHO, BUSY, REFUSED])),
    st.tuples(st.just("wait"), st.integers(1, 4)),
    st.tuples(st.sampled_from(sorted(VERBS)), st.integers(0, 3)),
)


async def run_programme(programme: list[tuple[str, object]]) -> None:
    async with simulated(rpc_timeout=2) as (session, gateway):
        calls: list[tuple[ActiveCall, Expected]] = []
        for verb, argument in programme:
            if verb == "originate":
                await originate(session, str(argument), calls)
            elif verb == "wait":
                assert isinstance(argument, int)
                await trio.sleep(argument * STEP)
            elif calls:
                assert isinstance(argument, int)
                call, expected = calls[argument % len(calls)]
                await carry_out(verb, call, expected)
            await trio.sleep(STEP)
            for call, expected in calls:
                expected.advance(trio.current_time())
                agree(call, expected)
        assert gateway.statistics().model.calls_open == sum(expected.state != "ended" for _, expected in calls)
        for call, expected in calls:
            await call.hangup()
            await compare_events(call, expected)
        assert not session.calls
        assert session.statistics().events_out_of_order == 0
    assert gateway.statistics().model.calls_open == 0


async def failure_of(command: Callable[[], Awaitable[object]]) -> AgentaoError | None:
    try:
        await command()
    except AgentaoError as error:
        return error
    return None


async def originate(session: Session, to: str, calls: list[tuple[ActiveCall, Expected]]) -> None:
    now = trio.current_time()

    async def command() -> None:
        call = await session.originate(to, trunk_id="main")
        calls.append((call, Expected(to=to, placed_at=now)))

    error = await failure_of(command)
    if to == REFUSED:
        assert isinstance(error, CommandRejected)
        assert error.code == ErrorCode.ERR_RATE_LIMITED
    else:
        assert error is None


async def carry_out(verb: str, call: ActiveCall, expected: Expected) -> None:
    wanted = expected.outcome(verb)
    error = await failure_of(lambda: VERBS[verb](call))
    assert type(error) is (wanted or type(None)), f"{verb}: {error!r} where {wanted} was expected"


def agree(call: ActiveCall, expected: Expected) -> None:
    state = {
        "pending": CallState.PENDING,
        "answered": CallState.ANSWERED,
        "held": CallState.ANSWERED,
        "ended": CallState.DISCONNECTED,
    }[expected.state]
    assert call.state is state
    assert call.on_hold is (expected.state == "held")


async def compare_events(call: ActiveCall, expected: Expected) -> None:
    if expected.state != "ended":
        expected.end(16)
    ending = await call.wait_ended()
    assert [record.event.event_type async for record in call.events()] == expected.events
    assert ending.q850_cause == expected.cause
    assert ending.statistics.packets_sent + ending.statistics.packets_cleared == expected.sent


@given(st.lists(step, max_size=14))
@settings(max_examples=150, deadline=None)
def test_states_events_and_errors_are_those_of_the_model(programme: list[tuple[str, object]]) -> None:
    trio.run(run_programme, programme, clock=MockClock(autojump_threshold=0))
