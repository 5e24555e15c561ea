"""A session and a gateway in the hands of Hypothesis: one long run of trio that is a guest of the state machine.

Each rule says what happens next and leaves it at that; time passes only in a rule of its own, so that a trouble may
come in the middle of anything. The session, the gateway and the QUIC between them live as long as the machine. Whatever
was done, in the end every call is over at both ends, told once, and nothing was lost, because no outage here is longer
than what gateways remember.

A few machines are run here; ``python -m tests.soak machines`` runs thousands.
"""

from __future__ import annotations

import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import outcome
import trio
import trio._core._run
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from trio.testing import MockClock

from agentao_trio import ActiveCall, AgentaoError, CallState, EventType, Session
from agentao_trio.callstate import Verdict
from agentao_trio.gateway import Gateway, GatewaySettings
from agentao_trio.testing import MemoryNetwork
from tests.support.simulated import simulated

NUMBERS = {
    "echo": "+15550100001",
    "nobody speaks": "+15550100005",
    "holds": "+15550100006",
    "hangs up": "+15550100016",
    "busy": "+15550100017",
    "no answer": "+15550100019",
}
MOMENTS = st.sampled_from([0.0, 0.001, 0.01, 0.05, 0.3, 2.0, 7.0])
CALLS = st.integers(0, 5)


class Guest:
    """A run of trio in virtual time that goes on when it is told to, and stands still in between."""

    def __init__(self, main: Callable[..., Awaitable[None]]) -> None:
        self._ticks: deque[Callable[[], Any]] = deque()
        self._result: outcome.Outcome[None] | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._finish: trio.Event | None = None
        self._main = main
        run: Any = trio._core._run
        run._r.seed(0)
        random.seed(0)
        trio.lowlevel.start_guest_run(
            self._live,
            run_sync_soon_threadsafe=self._ticks.append,
            done_callback=self._done,
            clock=MockClock(autojump_threshold=0),
        )
        self._pump(lambda: self._nursery is not None)

    def start(self, task: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Start a task; it takes its first step when time next passes."""
        assert self._token is not None
        assert self._nursery is not None
        self._token.run_sync_soon(self._nursery.start_soon, task, *arguments)

    def now(self, act: Callable[[], object]) -> None:
        """Have something done that does not wait."""

        async def once() -> None:
            act()
            await trio.lowlevel.checkpoint()
            done.append(True)

        done: list[bool] = []
        self.start(once)
        self._pump(lambda: bool(done))

    def wait(self, seconds: float) -> None:
        """Let so much time pass."""

        async def nap() -> None:
            await trio.sleep(seconds)
            woken.append(True)

        woken: list[bool] = []
        self.start(nap)
        self._pump(lambda: bool(woken))

    def finish(self) -> None:
        """Let the run come to its end. Raises what it ended with, unless that has been raised already."""
        if self._result is not None:
            return
        assert self._token is not None
        assert self._finish is not None
        self._token.run_sync_soon(self._finish.set)
        self._pump(lambda: self._result is not None)
        assert self._result is not None
        self._result.unwrap()

    async def _live(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._finish = trio.Event()
        await self._main(self._settle, self._finish)

    def _settle(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def _done(self, result: outcome.Outcome[None]) -> None:
        self._result = result

    def _pump(self, reached: Callable[[], bool]) -> None:
        while not reached():
            if self._result is not None:
                self._result.unwrap()
                raise AssertionError("the run came to its end before its time")
            self._ticks.popleft()()


class SessionMachine(RuleBasedStateMachine):
    session: Session
    gateway: Gateway

    @initialize(audio_streams=st.sampled_from(["shared", "per_call"]), loss=st.sampled_from([0.0, 0.0, 0.05]))
    def open(self, audio_streams: Any, loss: float) -> None:
        self.network = MemoryNetwork(seed=1, delay=0.02, loss=loss)
        self.socket = self.network.socket()
        self.calls: list[ActiveCall] = []
        self.placed_inbound: set[str | None] = set()
        self.told: dict[str, list[int]] = {}
        self.settings = GatewaySettings(ring=0.06, talk=0.4, patience=1.0, audio_streams=audio_streams)
        self.guest = Guest(self._main)

    async def _main(self, settle: Callable[[trio.Nursery], None], finish: trio.Event) -> None:
        async with simulated(self.settings, self.network, rpc_timeout=3.0, trunks=["main"]) as (session, gateway):
            self.session, self.gateway = session, gateway
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen)
                nursery.start_soon(self._take_inbound_calls)
                settle(nursery)
                await finish.wait()
                nursery.cancel_scope.cancel()

    async def _listen(self) -> None:
        async for record in self.session.events(overflow="end"):
            if record.verdict is not Verdict.DUPLICATE:
                self.told.setdefault(record.call_sid, []).append(record.event.event_type)

    async def _take_inbound_calls(self) -> None:
        async for call in self.session.incoming():
            assert call.call_sid in self.placed_inbound, "one of ours was taken for somebody else's"
            self.calls.append(call)

    async def _place(self, to: str, patience: float) -> None:
        with trio.move_on_after(patience):
            with contextlib.suppress(AgentaoError):
                self.calls.append(await self.session.originate(to, trunk_id="main"))

    async def _with_call(self, call: ActiveCall, verb: Callable[[ActiveCall], Awaitable[object]]) -> None:
        with contextlib.suppress(AgentaoError, trio.BusyResourceError):
            await verb(call)

    # -- what may happen ------------------------------------------------------------------------------------------

    @rule(to=st.sampled_from(sorted(NUMBERS)))
    def a_call_is_placed(self, to: str) -> None:
        self.guest.start(self._place, NUMBERS[to], 60.0)

    @rule(patience=st.sampled_from([0.0, 0.01, 0.03, 0.05, 0.1]))
    def a_call_is_placed_and_given_up(self, patience: float) -> None:
        self.guest.start(self._place, NUMBERS["echo"], patience)

    @rule(far_end=st.sampled_from(["echo", "hangup"]))
    def somebody_calls(self, far_end: str) -> None:
        self.guest.now(
            lambda: self.placed_inbound.add(self.gateway.place_inbound_call(trunk_id="main", far_end=far_end))
        )

    @rule(
        index=CALLS,
        verb=st.sampled_from(
            [
                lambda call: call.answer(),
                lambda call: call.send_audio(b"\x55" * 800),
                lambda call: call.hold(),
                lambda call: call.unhold(),
                lambda call: call.hangup(),
            ]
        ),
    )
    def something_is_done_with_a_call(self, index: int, verb: Any) -> None:
        if index < len(self.calls):
            self.guest.start(self._with_call, self.calls[index], verb)

    @rule(index=CALLS)
    def a_far_end_hangs_up(self, index: int) -> None:
        if index < len(self.gateway.model.calls):
            call_sid = list(self.gateway.model.calls)[index]
            self.guest.now(lambda: self.gateway.hang_up(call_sid, 16))

    @rule(seconds=MOMENTS)
    def time_passes(self, seconds: float) -> None:
        self.guest.wait(seconds)

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 15.0]))
    def the_path_goes_dark(self, seconds: float) -> None:
        self.guest.now(lambda: self.network.outage(seconds))

    @rule()
    def streams_are_reset(self) -> None:
        self.guest.now(self.gateway.reset_streams)

    @rule()
    def connections_are_closed(self) -> None:
        self.guest.start(self.gateway.disconnect)

    # -- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def every_hangup_is_told_once(self) -> None:
        if hasattr(self, "guest"):
            for events in self.told.values():
                assert events.count(EventType.CHANNEL_HANGUP_COMPLETE) <= 1

    @invariant()
    def nothing_is_lost_or_made_up(self) -> None:
        if hasattr(self, "guest"):
            statistics = self.session.statistics()
            assert statistics.calls_open == len(self.session.calls)
            assert statistics.calls_opened == statistics.calls_open + (
                statistics.calls_ended
                + statistics.calls_disowned
                + statistics.calls_released
                + statistics.calls_refused
            )
            assert statistics.calls_lost == statistics.frames_undecodable == statistics.streams_abandoned == 0
            assert all(call.state is not CallState.DISCONNECTED for call in self.session.calls.values())

    def teardown(self) -> None:
        if not hasattr(self, "guest"):
            return
        try:
            self.guest.wait(25)  # whatever was dark is light again, and whatever was kept is replayed
            self.guest.start(self._leave_everything)
            self.guest.wait(20)
            assert not self.session.calls
            assert all(call.state is CallState.DISCONNECTED for call in self.calls)
            assert self.gateway.model.statistics().calls_open == 0
            self.every_hangup_is_told_once()
            self.nothing_is_lost_or_made_up()
        finally:
            self.guest.finish()

    async def _leave_everything(self) -> None:
        async with trio.open_nursery() as nursery:
            for call in tuple(self.session.calls.values()):
                nursery.start_soon(self._with_call, call, lambda call: call.hangup())


TestSession = SessionMachine.TestCase
TestSession.settings = settings(
    max_examples=10,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
