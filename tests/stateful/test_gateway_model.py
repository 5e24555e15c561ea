"""Random programmes of legal and illegal commands for several calls at once, against a naive model of what must happen.

The naive model keeps one word per call (ringing, answered, held, ended) and, from it, what each command must do. It is
told when time passes and hears the events; whatever it did not expect, it objects to.
"""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentao_trio import messages as m
from agentao_trio.callstate import CallOrder, OrderState, Verdict
from agentao_trio.gateway.settings import GatewaySettings
from agentao_trio.messages import DialplanAction, ErrorCode, EventType
from tests.support.bench import Bench, packet, wav

SIDS = [f"call-{n}" for n in range(4)]
NUMBERS = [
    "+15550100001",
    "+15550100002",
    "+15550100006",
    "+15550100007",
    "+15550100016",
    "+15550100017",
    "+15550100019",
    "+15550100130",
    "+15550100230",
    "+15550100501",
]
REFUSED = {
    "": ErrorCode.ERR_INVALID_DESTINATION,
    "+15550100401": ErrorCode.ERR_INVALID_TRUNK,
    "+15550100403": ErrorCode.ERR_RATE_LIMITED,
    "nonsense": ErrorCode.ERR_INVALID_DESTINATION,
}
ARGUMENTS = {
    DialplanAction.TRANSFER: "+15550100017",  # busy: the call stays
    DialplanAction.SEND_DTMF: "5:rfc2833:100",
    DialplanAction.PLAYBACK: "/hello.wav",
}
#: Actions that a call which is up, held or not, always accepts and that change no state.
HARMLESS = (
    DialplanAction.PARK,
    DialplanAction.PLAYBACK,
    DialplanAction.ANSWER,
    DialplanAction.AI_BIDIRECTIONAL_STREAM,
    DialplanAction.MUTE,
    DialplanAction.UNMUTE,
    DialplanAction.SEND_DTMF,
    DialplanAction.LOOPBACK,
)
WORDS = {
    OrderState.CREATED: "ringing",
    OrderState.ANSWERED: "answered",
    OrderState.HELD: "held",
    OrderState.ENDED: "ended",
}
sids = st.sampled_from(SIDS)


class Programme(RuleBasedStateMachine):
    @initialize(audio_streams=st.sampled_from(["shared", "per_call"]), seed=st.integers(0, 99))
    def open(self, audio_streams: Any, seed: int) -> None:
        self.bench = Bench(GatewaySettings(audio_streams=audio_streams), files={"/hello.wav": wav()}, seed=seed)
        self.placed: dict[str, str] = {}  # the number each open or finished call went to
        self.ended: set[str] = set()  # by a command of ours
        self.peer = self.bench.peer
        self.everybody = [self.peer]
        self.is_here = True

    # -- what the naive model believes ----------------------------------------------------------------------------

    def events_of(self, sid: str) -> list[m.CallEvent]:
        """What was delivered, without the replays: a hangup from shortly before a connection went comes again."""
        delivered = [event for peer in self.everybody for event in self.bench.events[peer] if event.call_sid == sid]
        replays = [event for n, event in enumerate(delivered) if event in delivered[:n]]
        assert all(event.event_type == EventType.CHANNEL_HANGUP_COMPLETE for event in replays)
        return list(dict.fromkeys(delivered))

    def state_of(self, sid: str) -> str:
        """What the events say. While nobody is there to hear them, the gateway has to be believed."""
        if sid not in self.placed:
            return "unknown"
        if not self.is_here:
            call = self.bench.model.calls.get(sid)
            return WORDS[call.state if call is not None else OrderState.ENDED]
        order = CallOrder()
        for event in self.events_of(sid):
            order.feed(event.event_type, event.timestamp_ms)
        return WORDS[order.state]

    def expect(self, reply: Any, ok: bool) -> None:
        assert (reply.error_code == ErrorCode.SUCCESS) is ok, reply
        assert bool(reply.error_message) is not ok
        if not ok:
            assert reply.error_code == ErrorCode.ERR_VALIDATION_FAILED

    # -- commands -------------------------------------------------------------------------------------------------

    @rule(sid=sids, to=st.sampled_from(NUMBERS), limit=st.sampled_from([0, 300, 2_000]))
    def originate(self, sid: str, to: str, limit: int) -> None:
        reply = self.bench.originate(to, sid, self.peer, max_duration_ms=limit, client_id="me")
        if to.endswith("501") and sid not in self.placed:
            assert not isinstance(reply, m.OriginateResponse)
        else:
            self.expect(reply, ok=sid not in self.placed)
        self.placed.setdefault(sid, to)

    @rule(sid=sids, to=st.sampled_from(sorted(REFUSED)))
    def originate_in_vain(self, sid: str, to: str) -> None:
        known = sid in self.placed
        code = self.bench.originate(to, sid, self.peer).error_code
        assert code == (ErrorCode.ERR_VALIDATION_FAILED if known else REFUSED[to])

    @rule(sid=sids)
    def terminate(self, sid: str) -> None:
        open_before = self.state_of(sid) not in ("unknown", "ended")
        self.expect(self.bench.ask(m.TerminateRequest(call_sid=sid), self.peer), ok=open_before)
        assert self.state_of(sid) in ("unknown", "ended")
        self.ended |= {sid} if open_before else set()

    @rule(sid=sids, action=st.sampled_from([DialplanAction.HOLD, DialplanAction.MUSIC_ON_HOLD]))
    def hold(self, sid: str, action: int) -> None:
        before = self.state_of(sid)
        self.expect(self.bench.dialplan(action, "", sid, self.peer), ok=before == "answered")
        assert self.state_of(sid) == ("held" if before == "answered" else before)

    @rule(sid=sids)
    def unhold(self, sid: str) -> None:
        before = self.state_of(sid)
        self.expect(self.bench.dialplan(DialplanAction.UNHOLD, "", sid, self.peer), ok=before == "held")
        assert self.state_of(sid) == ("answered" if before == "held" else before)

    @rule(sid=sids, action=st.sampled_from(HARMLESS))
    def do_something_harmless(self, sid: str, action: DialplanAction) -> None:
        before = self.state_of(sid)
        reply = self.bench.dialplan(action, ARGUMENTS.get(action, ""), sid, self.peer)
        self.expect(reply, ok=before in ("answered", "held"))
        assert self.state_of(sid) == before

    @rule(sid=sids, action=st.sampled_from([*range(-1, 15), 99]))
    def do_something_wrong(self, sid: str, action: int) -> None:
        if action in (DialplanAction.HANGUP, DialplanAction.PARK, DialplanAction.MUSIC_ON_HOLD, DialplanAction.ANSWER):
            return  # these take any argument
        if action in (DialplanAction.AI_BIDIRECTIONAL_STREAM, DialplanAction.LOOPBACK):
            return
        before = self.state_of(sid)
        self.expect(self.bench.dialplan(action, "\0wrong", sid, self.peer), ok=False)
        assert self.state_of(sid) == before

    @rule(sid=sids)
    def transfer(self, sid: str) -> None:
        call = self.bench.model.calls.get(sid)
        ok = self.state_of(sid) in ("answered", "held") and call is not None and not call.is_being_transferred
        reply = self.bench.dialplan(DialplanAction.TRANSFER, ARGUMENTS[DialplanAction.TRANSFER], sid, self.peer)
        self.expect(reply, ok=ok)

    @rule(sid=sids, other=sids)
    def bridge(self, sid: str, other: str) -> None:
        up = ("answered", "held")
        ok = sid != other and self.state_of(sid) in up and self.state_of(other) in up
        self.expect(self.bench.dialplan(DialplanAction.UNPARK_AND_BRIDGE, other, sid, self.peer), ok=ok)

    @rule(sid=sids)
    def barge(self, sid: str) -> None:
        reply = self.bench.ask(m.BargeRequest(call_sid=sid), self.peer)
        if self.state_of(sid) not in ("unknown", "ended"):
            assert reply == m.Empty()

    @rule(sid=sids, count=st.integers(1, 30))
    def talk(self, sid: str, count: int) -> None:
        for n in range(count):
            self.bench.say(packet(n), sid, self.peer)

    # -- the world ------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.02, 0.1, 0.3, 1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        self.bench.run(seconds)

    @precondition(lambda self: self.is_here)
    @rule()
    def go_away(self) -> None:
        self.bench.disconnect(self.peer)
        self.peer = self.bench.connect()  # unsubscribed, to go on commanding
        self.is_here = False

    @precondition(lambda self: not self.is_here)
    @rule()
    def come_back(self) -> None:
        self.peer = self.bench.connect("me")
        self.everybody.append(self.peer)
        self.is_here = True

    # -- what must always hold ------------------------------------------------------------------------------------

    @invariant()
    def events_are_in_order_and_true(self) -> None:
        if not hasattr(self, "bench"):
            return
        for sid in SIDS:
            order = CallOrder()
            events = self.events_of(sid)
            for event in events:
                assert order.feed(event.event_type, event.timestamp_ms) is Verdict.IN_ORDER
                assert event.client_id == "me"
                assert event.start_timestamp_ms <= (event.answer_timestamp_ms or event.timestamp_ms)
            stamps = [event.timestamp_ms for event in events]
            assert stamps == sorted(set(stamps))
            if sid in self.ended and self.is_here:
                assert order.state is OrderState.ENDED

    @invariant()
    def frames_are_numbered(self) -> None:
        if not hasattr(self, "bench"):
            return
        for sid in SIDS:
            frames = [frame for peer in self.everybody for frame in self.bench.frames(sid, peer)]
            numbers = [frame.sequence_number for frame in frames]
            assert all(late - early >= -1 for early, late in itertools.pairwise(numbers))
            assert len(set(numbers)) == len(numbers)
            assert not any(frame.end_of_stream for frame in frames[:-1])

    def teardown(self) -> None:
        """Every call comes to its end, exactly once, and nothing is left of it."""
        if not hasattr(self, "bench"):
            return
        if not self.is_here:
            self.come_back()
        for sid in list(self.bench.model.calls):
            self.bench.ask(m.TerminateRequest(call_sid=sid), self.peer)
        self.bench.run(1)
        for sid in self.placed:
            events = self.events_of(sid)
            assert [event.event_type for event in events].count(EventType.CHANNEL_HANGUP_COMPLETE) == 1
            account = events[-1]
            assert account.event_type == EventType.CHANNEL_HANGUP_COMPLETE
            assert account.start_timestamp_ms <= account.end_timestamp_ms <= account.timestamp_ms
            assert 0 <= account.estimated_mos <= 5
            assert account.q850_cause > 0
            answered = EventType.CHANNEL_ANSWER in [event.event_type for event in events]
            delivered = [frame for peer in self.everybody for frame in self.bench.frames(sid, peer)]
            assert account.packets_sent == sum(not frame.end_of_stream for frame in delivered)
            assert account.bytes_sent == sum(len(frame.payload) for frame in delivered)
            assert answered or not delivered
        statistics = self.bench.model.statistics()
        assert (statistics.calls_open, statistics.calls_placed) == (0, len(self.placed))
        assert statistics.calls_ended == len(self.placed)


Programme.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestProgramme = Programme.TestCase
