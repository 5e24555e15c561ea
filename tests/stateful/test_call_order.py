"""CallOrder against a model that has no table: a regular expression, a string of letters and brute force."""

from __future__ import annotations

import re
from itertools import product

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agentao_trio.callstate import CallOrder, OrderState, Verdict
from agentao_trio.messages import EventType

LETTERS = {
    EventType.CHANNEL_CREATE: "C",
    EventType.CHANNEL_ANSWER: "A",
    EventType.CHANNEL_HOLD: "H",
    EventType.CHANNEL_RESUME: "R",
    EventType.CHANNEL_HANGUP_COMPLETE: "E",
}
STATES = {
    "": OrderState.NEW,
    "C": OrderState.CREATED,
    "A": OrderState.ANSWERED,
    "H": OrderState.HELD,
    "E": OrderState.ENDED,
}
# Every beginning of CREATE ( ANSWER ( HOLD RESUME )* HOLD? )? HANGUP_COMPLETE (PROTOCOL section 10.2).
BEGINNING = re.compile("C?|CE|CA(HR)*H?E?")
# What may be missing between two events, the shortest first; three events suffice to get anywhere.
MISSING = ["".join(letters) for length in range(4) for letters in product("CAHRE", repeat=length)]

TYPES = st.sampled_from(list(LETTERS))
TIMESTAMPS = st.integers(0, 20) | st.integers(-(2**63), 2**63 - 1)


class CallOrderMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.order = CallOrder()
        self.story = ""  # the legal story so far, with the missing events filled in
        self.heard: list[tuple[EventType, int]] = []
        self.storms = 0

    def hear(self, event: EventType, timestamp_ms: int) -> None:
        assert self.order.feed(event, timestamp_ms) is self.expected(event, timestamp_ms)

    def expected(self, event: EventType, timestamp_ms: int) -> Verdict:
        if (event, timestamp_ms) in self.heard[-64:]:
            return Verdict.DUPLICATE
        self.heard.append((event, timestamp_ms))
        for missing in MISSING:
            story = self.story + missing + LETTERS[event]
            if BEGINNING.fullmatch(story):
                self.story = story.replace("HR", "")  # held and resumed: as if it had never been held
                return Verdict.GAP if missing else Verdict.IN_ORDER
        return Verdict.VIOLATION

    @rule(event=TYPES, timestamp_ms=TIMESTAMPS)
    def any_event(self, event: EventType, timestamp_ms: int) -> None:
        self.hear(event, timestamp_ms)

    @rule(data=st.data())
    def a_legal_event(self, data: st.DataObject) -> None:
        legal = [event for event, letter in LETTERS.items() if BEGINNING.fullmatch(self.story + letter)]
        if legal:
            self.hear(data.draw(st.sampled_from(legal)), len(self.heard) + 1000)

    @rule(data=st.data())
    def a_replay(self, data: st.DataObject) -> None:
        if self.heard:
            self.hear(*data.draw(st.sampled_from(self.heard)))

    @rule()
    def a_storm_of_holds_and_resumes(self) -> None:
        self.storms += 1
        for tick in range(20):
            event = EventType.CHANNEL_RESUME if tick % 2 else EventType.CHANNEL_HOLD
            self.hear(event, self.storms * 1_000_000 + tick)

    @rule(event_type=st.integers(-(2**31), 2**31 - 1).filter(lambda number: number not in LETTERS))
    def an_unknown_type(self, event_type: int) -> None:
        assert self.order.feed(event_type, 0) is Verdict.UNKNOWN

    @invariant()
    def the_state_is_where_the_story_ends(self) -> None:
        assert self.order.state is STATES[self.story[-1:]]


TestCallOrder = CallOrderMachine.TestCase
