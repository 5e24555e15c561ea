"""Campaigns in virtual time: against a gateway that is told what each number does, and against the embedded one."""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, Literal

import pytest
import trio
from trio.testing import MockClock

from agentao_trio import ActiveCall, CallEnded, CallState, ErrorCode, Session, SessionClosed, messages
from agentao_trio.campaign import (
    Campaign,
    CampaignResult,
    CampaignRow,
    Outcome,
    OutcomeLine,
    Progress,
    RetryPolicy,
    Step,
    read_numbers,
)
from agentao_trio.gateway import GatewaySettings
from agentao_trio.messages import MethodId
from agentao_trio.records import Record, RecordKind
from agentao_trio.testing import MemoryNetwork
from tests.support.scripted_gateway import ANSWER, CREATE, HANGUP, ScriptedGateway, session_on
from tests.support.simulated import simulated
from tests.support.sweep import World, sweep


def number(index: int) -> str:
    return f"+1555020{index:04}"


def rows(count: int) -> list[CampaignRow]:
    return [CampaignRow(to=number(index), line=index + 2) for index in range(count)]


class Exchange:
    """A gateway at which each number does as it is told, attempt by attempt, and answers where it is told nothing.

    A script is a list of what the attempts come to: a Q.850 cause after ``ring`` seconds, an ErrorCode, ``"answer"``,
    ``"ring"`` for ever, or ``"silence"``: no reply, no event.
    """

    def __init__(self, **scripts: list[Any]) -> None:
        self.gateway = ScriptedGateway(self._answer)
        self.scripts: dict[str, list[Any]] = {number(int(key[1:])): script for key, script in scripts.items()}
        self.placed: list[tuple[float, str]] = []
        self.open: dict[str, str] = {}
        self.most_open = 0
        self.ring = 0.5
        self._attempts: defaultdict[str, itertools.count[int]] = defaultdict(itertools.count)

    async def _answer(self, method: MethodId, request: Any) -> Any:
        if method is MethodId.Originate:
            return await self._originate(request)
        if method is MethodId.Terminate:
            await self._hang_up(request.call_sid, 16)
            return messages.TerminateResponse(call_sid=request.call_sid)
        return None

    async def _originate(self, request: messages.OriginateRequest) -> Any:
        self.placed.append((trio.current_time(), request.to))
        script = self.scripts.get(request.to, [])
        attempt = next(self._attempts[request.to])
        what = script[min(attempt, len(script) - 1)] if script else "answer"
        if what == "silence":
            raise ScriptedGateway.Silence
        if isinstance(what, ErrorCode):
            return messages.OriginateResponse(error_code=what, error_message="as told")
        self.open[request.call_sid] = request.to
        self.most_open = max(self.most_open, len(self.open))
        self._nursery.start_soon(self._call, request.call_sid, what)
        return messages.OriginateResponse(call_sid=request.call_sid)

    async def _call(self, call_sid: str, what: Any) -> None:
        await self.gateway.event(call_sid, CREATE)
        await trio.sleep(self.ring)
        if isinstance(what, int):
            await self._hang_up(call_sid, what)
        elif what == "answer" and call_sid in self.open:
            await self.gateway.event(call_sid, ANSWER, codec="PCMU")

    async def _hang_up(self, call_sid: str, cause: int) -> None:
        if self.open.pop(call_sid, None) is not None:
            await self.gateway.event(call_sid, HANGUP, q850_cause=cause)

    @asynccontextmanager
    async def session(self, network: MemoryNetwork | None = None, **options: Any) -> AsyncIterator[Session]:
        async with trio.open_nursery() as self._nursery:
            async with session_on(self.gateway, network, **options) as session:
                yield session
            self._nursery.cancel_scope.cancel()


async def nothing(call: ActiveCall, row: CampaignRow) -> None:
    """An agent that hangs up at once."""


def campaign(session: Session, numbers: Iterable[CampaignRow], handler: Any = nothing, **options: Any) -> Campaign:
    return Campaign(session, list(numbers), handler, **{"trunk_id": "main", "calls_per_second": 10, **options})


async def collect(progress: AsyncIterator[Progress], into: list[Progress]) -> None:
    into.extend([record async for record in progress])


def outcomes(result: CampaignResult) -> list[Outcome | None]:
    return [row.outcome for row in result.rows]


# -- who is called --------------------------------------------------------------------------------------------------


async def test_everybody_is_called_once_and_the_agent_knows_whom_it_talks_to(autojump_clock: MockClock) -> None:
    talked: list[tuple[str, str, CallState]] = []

    async def greet(call: ActiveCall, row: CampaignRow) -> None:
        talked.append((call.callee, row.data["name"], call.state))

    exchange = Exchange()
    file = b"to,call_from,trunk_id,name\n+15550200000,,,Ada\n+15550200001,+15559,berlin,Bob\n"
    async with exchange.session() as session:
        result = await campaign(session, read_numbers(file), greet, call_from="+15551", max_duration_ms=60_000).run()
        assert not session.calls
    assert talked == [(number(0), "Ada", CallState.ANSWERED), (number(1), "Bob", CallState.ANSWERED)]
    assert [
        (request.to, request.call_from, request.trunk_id, request.max_duration_ms)
        for request in exchange.gateway.requested(MethodId.Originate)
    ] == [(number(0), "+15551", "main", 60_000), (number(1), "+15559", "berlin", 60_000)]
    assert outcomes(result) == [Outcome.ANSWERED] * 2
    assert [row.cause for row in result.rows] == [16, 16]
    assert result.complete
    assert exchange.open == {}


async def test_the_pace_is_kept_and_never_made_up_for_in_a_burst(autojump_clock: MockClock) -> None:
    exchange = Exchange()
    async with exchange.session() as session:
        await campaign(session, rows(40), calls_per_second=4, max_concurrent=100).run()
    times = [at for at, _ in exchange.placed]
    assert [to for _, to in exchange.placed] == [number(index) for index in range(40)]
    assert times == pytest.approx([times[0] + index / 4 for index in range(40)], abs=1e-4)


async def test_no_more_calls_at_once_than_allowed_and_no_burst_when_there_is_room_again(
    autojump_clock: MockClock,
) -> None:
    async def talk(call: ActiveCall, row: CampaignRow) -> None:
        await trio.sleep(10)

    exchange = Exchange()
    async with exchange.session() as session:
        await campaign(session, rows(12), talk, calls_per_second=5, max_concurrent=4).run()
    assert exchange.most_open == 4
    times = [at for at, _ in exchange.placed]
    assert all(later - earlier >= 0.1 for earlier, later in pairwise(times))
    # Four at a time, ten seconds each: as soon as there is room, and no later.
    assert times[-1] - times[0] == pytest.approx(2 * 10.5 + 3 * 0.2, abs=0.3)


async def test_busy_and_no_answer_are_called_again_after_their_pauses(autojump_clock: MockClock) -> None:
    exchange = Exchange(n0=[17, "answer"], n1=[19, 18, 17, 17], n2=[21], n3=["answer"])
    policy = RetryPolicy(attempts=3, pause=60, pauses={19: 300})
    async with exchange.session() as session:
        result = await campaign(session, rows(4), retry=policy).run()
    placed = defaultdict(list)
    for at, to in exchange.placed:
        placed[to].append(at)
    assert [len(placed[number(index)]) for index in range(4)] == [2, 3, 1, 1]
    # Half a second of ringing, then the pause.
    assert [later - earlier for earlier, later in pairwise(placed[number(0)])] == pytest.approx([60.5], abs=0.1)
    assert [later - earlier for earlier, later in pairwise(placed[number(1)])] == pytest.approx([300.5, 60.5], abs=0.1)
    assert outcomes(result) == [Outcome.ANSWERED, Outcome.UNANSWERED, Outcome.UNANSWERED, Outcome.ANSWERED]
    assert [[attempt.cause for attempt in row.attempts] for row in result.rows] == [[17, 16], [19, 18, 17], [21], [16]]
    assert result.attempts == 7
    assert result.outcomes == (
        OutcomeLine(outcome=Outcome.ANSWERED, cause=16, meaning="Normal call clearing", numbers=2),
        OutcomeLine(outcome=Outcome.UNANSWERED, cause=17, meaning="User busy", numbers=1),
        OutcomeLine(outcome=Outcome.UNANSWERED, cause=21, meaning="Call rejected", numbers=1),
    )


async def test_a_call_that_was_answered_is_not_called_again_whatever_its_cause(autojump_clock: MockClock) -> None:
    exchange = Exchange()

    async def they_hang_up(call: ActiveCall, row: CampaignRow) -> None:
        await exchange._hang_up(call.call_sid, 17)
        await call.wait_ended()

    async with exchange.session() as session:
        result = await campaign(session, rows(1), they_hang_up).run()
    assert [(row.outcome, row.cause, len(row.attempts)) for row in result.rows] == [(Outcome.ANSWERED, 17, 1)]


async def test_one_who_hangs_up_before_the_agent_runs_has_answered(autojump_clock: MockClock) -> None:
    exchange = Exchange(n0=["ring"])
    ran: list[str] = []

    async def note(call: ActiveCall, row: CampaignRow) -> None:
        ran.append(call.call_sid)

    async with exchange.session() as session, trio.open_nursery() as nursery:
        running = campaign(session, rows(1), note)
        nursery.start_soon(running.run)
        await trio.sleep(1)
        [call_sid] = exchange.open
        events = [(ANSWER, {}), (HANGUP, {"q850_cause": 17, "answer_timestamp_ms": 77})]
        await exchange.gateway.stream(
            b"".join(exchange.gateway.event_frame(call_sid, event, **fields) for event, fields in events)
        )
    assert [(row.outcome, row.cause) for row in running.result().rows] == [(Outcome.ANSWERED, 17)]
    assert ran == []


async def test_whoever_lets_it_ring_is_hung_up_on_and_counts_as_no_answer(autojump_clock: MockClock) -> None:
    exchange = Exchange(n0=["ring"])
    async with exchange.session() as session:
        began = trio.current_time()
        result = await campaign(session, rows(1), answer_within=30, retry=RetryPolicy(attempts=2, pause=5)).run()
        assert trio.current_time() - began == pytest.approx(65, abs=0.1)
    [row] = result.rows
    assert [(attempt.outcome, attempt.cause) for attempt in row.attempts] == [(Outcome.UNANSWERED, 19)] * 2
    assert row.error == "nobody answered within 30 s"
    assert len(exchange.gateway.requested(MethodId.Terminate)) == 2


async def test_refusals_are_tried_again_only_where_the_protocol_says_so(autojump_clock: MockClock) -> None:
    limited, broken, never = ErrorCode.ERR_RATE_LIMITED, ErrorCode.ERR_INTERNAL_ERROR, ErrorCode.ERR_UNAUTHORIZED
    exchange = Exchange(n0=[limited, limited, "answer"], n1=[broken], n2=[never])
    async with exchange.session() as session:
        result = await campaign(session, rows(3), retry=RetryPolicy(attempts=9, rejected_pause=2)).run()
    assert outcomes(result) == [Outcome.ANSWERED, Outcome.REJECTED, Outcome.REJECTED]
    assert [len(row.attempts) for row in result.rows] == [3, 3, 1]
    at = [at for at, to in exchange.placed if to == number(0)]
    assert [later - earlier for earlier, later in pairwise(at)] == pytest.approx([2, 4], abs=0.2)
    assert [(row.attempts[-1].code, row.meaning) for row in result.rows[1:]] == [
        (5, "ERR_INTERNAL_ERROR"),
        (7, "ERR_UNAUTHORIZED"),
    ]
    assert "refused: ERR_UNAUTHORIZED (7): as told" in result.rows[2].error


async def test_what_may_have_been_a_call_is_never_repeated(autojump_clock: MockClock) -> None:
    exchange = Exchange(n0=["silence"])
    async with exchange.session(rpc_timeout=4) as session:
        result = await campaign(session, rows(2)).run()
    assert outcomes(result) == [Outcome.UNKNOWN, Outcome.ANSWERED]
    assert "the outcome is unknown" in result.rows[0].error
    assert [to for _, to in exchange.placed].count(number(0)) == 1


async def test_a_row_that_cannot_be_sent_fails_alone(autojump_clock: MockClock) -> None:
    exchange = Exchange()
    async with exchange.session() as session:
        result = await campaign(session, [CampaignRow(to="5550100001"), *rows(1)]).run()
    assert outcomes(result) == [Outcome.REJECTED, Outcome.ANSWERED]
    assert "'5550100001' is not a destination" in result.rows[0].error
    assert [to for _, to in exchange.placed] == [number(0)]


async def test_duplicates_that_are_skipped_have_an_outcome_too(autojump_clock: MockClock) -> None:
    exchange = Exchange()
    numbers = read_numbers(f"to\n{number(0)}\n{number(1)}\n{number(0)}\n".encode(), duplicates="skip")
    async with exchange.session() as session:
        result = await campaign(session, numbers).run()
    assert outcomes(result) == [Outcome.ANSWERED, Outcome.ANSWERED, Outcome.DUPLICATE]
    assert len(exchange.placed) == 2
    assert result.complete


async def test_nobody_to_call(autojump_clock: MockClock) -> None:
    async with Exchange().session() as session:
        result = await campaign(session, []).run()
    assert (result.rows, result.outcomes, result.attempts, result.complete) == ((), (), 0, True)


# -- what goes wrong ------------------------------------------------------------------------------------------------


async def test_a_handlers_failure_belongs_to_its_number(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def sometimes(call: ActiveCall, row: CampaignRow) -> None:
        if row.to == number(1):
            raise RuntimeError("the agent has a bug")

    exchange, errors = Exchange(), list[Record]()
    with caplog.at_level(logging.ERROR):
        async with exchange.session() as session:
            session.hub.attach(errors.append, kinds=[RecordKind.ERROR])
            result = await campaign(session, rows(3), sometimes).run()
            assert session.statistics().handler_failures == 1
    assert outcomes(result) == [Outcome.ANSWERED, Outcome.HANDLER_FAILED, Outcome.ANSWERED]
    assert (result.rows[1].error, result.rows[1].cause) == ("RuntimeError: the agent has a bug", 16)
    [error] = errors
    assert (error.call_sid, error.data["source"]) == (result.rows[1].attempts[0].call_sid, "handler")
    assert (error.data["type"], error.data["message"]) == ("RuntimeError", "CALL_ANSWERED: the agent has a bug")
    assert exchange.open == {}
    [record] = caplog.records
    assert record.exc_info is not None
    assert result.rows[1].attempts[0].call_sid in record.getMessage()
    # One hangup per call: the failure adds none.
    assert len(exchange.gateway.requested(MethodId.Terminate)) == 3


async def test_a_session_that_raises_ends_the_campaign_and_nothing_is_lost(autojump_clock: MockClock) -> None:
    async def fail(call: ActiveCall, row: CampaignRow) -> None:
        raise RuntimeError("the agent has a bug")

    exchange = Exchange()
    async with exchange.session(handler_errors="raise") as session:
        running = campaign(session, rows(20), fail, max_concurrent=1)
        with pytest.raises(ExceptionGroup) as caught:
            await running.run()
        assert caught.group_contains(RuntimeError, match="the agent has a bug")
        assert exchange.open == {}
    failed, next_in_line, *others = outcomes(running.result())
    assert failed is Outcome.HANDLER_FAILED
    assert next_in_line in (Outcome.INTERRUPTED, Outcome.NOT_CALLED)
    assert set(others) == {Outcome.NOT_CALLED}


@pytest.mark.parametrize("in_a_group", [False, True])
async def test_that_the_other_side_hangs_up_is_no_failure(in_a_group: bool, autojump_clock: MockClock) -> None:
    exchange = Exchange()

    async def talk(call: ActiveCall) -> None:
        while True:
            await call.send_audio(bytes(1600))

    async def they_hang_up(call: ActiveCall, row: CampaignRow) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(exchange._hang_up, call.call_sid, 16)
            if in_a_group:
                nursery.start_soon(talk, call)
                nursery.start_soon(talk_in_turn, call)
        await talk(call)

    async def talk_in_turn(call: ActiveCall) -> None:
        await call.wait_ended()
        await call.send_audio(b"too late")

    async with exchange.session() as session:
        result = await campaign(session, rows(1), they_hang_up).run()
        assert session.statistics().handler_failures == 0
    assert [(row.outcome, row.cause) for row in result.rows] == [(Outcome.ANSWERED, 16)]


async def test_that_another_call_has_ended_is_a_failure(autojump_clock: MockClock) -> None:
    async def mix_them_up(call: ActiveCall, row: CampaignRow) -> None:
        raise CallEnded("some other call", call_sid="other")

    async with Exchange().session() as session:
        result = await campaign(session, rows(1), mix_them_up).run()
    assert [(row.outcome, row.error) for row in result.rows] == [(Outcome.HANDLER_FAILED, "CallEnded: some other call")]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_call_that_is_lost_after_its_answer_was_answered(fails: bool, autojump_clock: MockClock) -> None:
    async def talk(call: ActiveCall, row: CampaignRow) -> None:
        network.outage(100)
        try:
            await call.wait_ended()
        finally:
            if fails:
                raise RuntimeError("the agent has a bug")

    exchange, network = Exchange(), MemoryNetwork()
    async with exchange.session(network, resume_window=10) as session:
        result = await campaign(session, rows(1), talk).run()
        assert session.statistics().handler_failures == fails
    [row] = result.rows
    assert row.outcome is (Outcome.HANDLER_FAILED if fails else Outcome.ANSWERED)
    assert row.cause is None
    assert ("RuntimeError: the agent has a bug" if fails else "nothing was heard of it") in row.error


async def test_calls_are_not_placed_into_an_outage(autojump_clock: MockClock) -> None:
    exchange, network = Exchange(), MemoryNetwork()
    async with exchange.session(network) as session, trio.open_nursery() as nursery:
        running = campaign(session, rows(30), calls_per_second=1)
        nursery.start_soon(running.run)
        await trio.sleep(5.2)
        network.outage(20)
    result = running.result()
    # The outage is noticed within two seconds or so; what was sent into it may or may not have been a call.
    assert 1 <= outcomes(result).count(Outcome.UNKNOWN) + outcomes(result).count(Outcome.LOST) <= 4
    assert outcomes(result).count(Outcome.ANSWERED) >= 26
    times = [at for at, _ in exchange.placed]
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(times[6:]))


async def test_a_call_whose_end_cannot_be_learned_is_lost_and_not_repeated(autojump_clock: MockClock) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.Originate:
            return messages.OriginateResponse(call_sid=request.call_sid)
        raise ScriptedGateway.Silence

    gateway = ScriptedGateway(answer)
    async with session_on(gateway) as session:
        result = await campaign(session, rows(1), answer_within=10).run()
    assert outcomes(result) == [Outcome.LOST]
    assert len(gateway.requested(MethodId.Originate)) == 1


async def test_a_call_that_the_network_ends_as_it_is_hung_up_was_not_answered_and_is_repeated(
    autojump_clock: MockClock,
) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.Originate:
            return messages.OriginateResponse(call_sid=request.call_sid)
        if method is MethodId.Terminate:
            nursery.start_soon(tell_the_end, request.call_sid)
            return messages.TerminateResponse(error_code=ErrorCode.ERR_VALIDATION_FAILED)
        return None

    async def tell_the_end(call_sid: str) -> None:
        await trio.sleep(0.05)
        await gateway.event(call_sid, HANGUP, q850_cause=19)

    gateway = ScriptedGateway(answer)
    async with trio.open_nursery() as nursery, session_on(gateway) as session:
        result = await campaign(session, rows(1), answer_within=10, retry=RetryPolicy(attempts=2, pause=5)).run()
    assert [attempt.outcome for attempt in result.rows[0].attempts] == [Outcome.UNANSWERED] * 2


async def test_a_session_that_closes_ends_the_campaign(autojump_clock: MockClock) -> None:
    exchange = Exchange()
    failures: list[BaseException] = []

    async def run(running: Campaign) -> None:
        try:
            await running.run()
        except* SessionClosed as group:
            failures.extend(group.exceptions)

    async with trio.open_nursery() as nursery, exchange.session() as session:
        running = campaign(session, rows(10), calls_per_second=1)
        nursery.start_soon(run, running)
        await trio.sleep(2.5)
    assert len(failures) == 1
    assert outcomes(running.result())[3:] == [Outcome.INTERRUPTED] + [Outcome.NOT_CALLED] * 6


# -- ending early ---------------------------------------------------------------------------------------------------


async def test_cancellation_hangs_up_everything_and_tells_who_was_not_called(autojump_clock: MockClock) -> None:
    async def talk_forever(call: ActiveCall, row: CampaignRow) -> None:
        await trio.sleep_forever()

    exchange = Exchange(n0=[17], n1=["ring"])
    async with exchange.session() as session:
        running = campaign(session, rows(10), talk_forever, calls_per_second=2, retry=RetryPolicy(pause=60))
        with trio.move_on_after(2.2) as scope:
            await running.run()
        assert scope.cancelled_caught
        assert not session.calls
    assert exchange.open == {}
    result = running.result()
    # Busy and waiting for its second attempt; ringing; three talking; and five whose turn had not come.
    assert outcomes(result) == [Outcome.INTERRUPTED] * 5 + [Outcome.NOT_CALLED] * 5
    assert [row.to for row in result.not_called] == [number(index) for index in range(5, 10)]
    assert [attempt.cause for attempt in result.rows[0].attempts] == [17]
    assert not result.complete
    assert result.seconds == pytest.approx(2.2, abs=0.1)


@pytest.mark.parametrize("kind", ["cancel", "sigint"])
def test_wherever_it_is_interrupted_nothing_is_left_and_every_row_has_its_outcome(
    kind: Literal["cancel", "sigint"],
) -> None:
    ends = ["+15550100001", "+15550100017", "+15550100016", "+15550100403", "+15550100001"]
    again = RetryPolicy(attempts=2, pause=0.1, rejected_pause=0.05)

    async def talk(call: ActiveCall, row: CampaignRow) -> None:
        await call.send_audio(call.codec.silence * 5)

    async def scenario(world: World) -> None:
        async with world.session() as session:
            numbers = [CampaignRow(to=to) for to in ends]
            running = campaign(session, numbers, talk, calls_per_second=20, max_concurrent=2, retry=again)
            try:
                await running.run()
            finally:
                if running.statistics().fresh < len(ends):  # it got to run
                    assert None not in outcomes(running.result())

    runs, findings = sweep(scenario, kind, points=40)
    assert runs > 30
    assert findings == []


async def test_stopping_lets_calls_finish_and_calls_nobody_again(autojump_clock: MockClock) -> None:
    async def talk(call: ActiveCall, row: CampaignRow) -> None:
        await trio.sleep(5)

    exchange = Exchange(n0=[17], n3=[17])
    async with exchange.session() as session, trio.open_nursery() as nursery:
        running = campaign(session, rows(10), talk, calls_per_second=2)
        nursery.start_soon(running.run)
        await trio.sleep(1.7)
        running.stop()
        running.stop()
    busy_when_stopped, busy_afterwards = Outcome.INTERRUPTED, Outcome.INTERRUPTED
    assert outcomes(running.result()) == [
        busy_when_stopped,
        Outcome.ANSWERED,
        Outcome.ANSWERED,
        busy_afterwards,
        *[Outcome.NOT_CALLED] * 6,
    ]
    assert running.result().seconds == pytest.approx(6.5, abs=0.1)


async def test_one_that_was_stopped_before_it_ran_calls_nobody(autojump_clock: MockClock) -> None:
    exchange = Exchange()
    told: list[Progress] = []
    async with exchange.session() as session:
        running = campaign(session, rows(2))
        progress = running.progress()
        running.stop()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, progress, told)
            await running.run()
    assert outcomes(running.result()) == [Outcome.NOT_CALLED] * 2
    assert [record.step for record in told] == [Step.QUEUED, Step.FINISHED] * 2
    assert exchange.placed == []


# -- what is told ---------------------------------------------------------------------------------------------------


async def test_progress_tells_the_whole_story_of_each_number(autojump_clock: MockClock) -> None:
    exchange = Exchange(n0=[17, "answer"], n1=[ErrorCode.ERR_INVALID_TRUNK])
    told: list[Progress] = []
    async with exchange.session() as session, trio.open_nursery() as nursery:
        running = campaign(session, rows(2), retry=RetryPolicy(pause=30))
        nursery.start_soon(collect, running.progress(), told)
        nursery.start_soon(running.run)
        await trio.sleep(1.5)
        statistics = running.statistics()
        assert (statistics.fresh, statistics.calling, statistics.waiting) == (0, 0, 1)
        assert (statistics.finished, statistics.attempts) == (1, 2)
        assert statistics.outcomes == {Outcome.REJECTED: 1}
        assert running.result().rows[0].outcome is None
    first, second = ([record for record in told if record.row.to == number(index)] for index in range(2))
    assert [(record.step, record.attempt) for record in first] == [
        (Step.QUEUED, 0),
        (Step.PLACING, 1),
        (Step.RINGING, 1),
        (Step.ENDED, 1),
        (Step.WAITING, 1),
        (Step.PLACING, 2),
        (Step.RINGING, 2),
        (Step.ANSWERED, 2),
        (Step.ENDED, 2),
        (Step.FINISHED, 2),
    ]
    busy = first[3]
    assert (busy.outcome, busy.cause, busy.meaning) == (Outcome.UNANSWERED, 17, "User busy")
    assert first[4].retry_at == pytest.approx(30.5, abs=0.1)
    assert {record.call_sid for record in first if record.step is Step.RINGING} == {
        attempt.call_sid for attempt in running.result().rows[0].attempts
    }
    assert [record.at for record in told] == sorted(record.at for record in told)
    assert [record.step for record in second] == [Step.QUEUED, Step.PLACING, Step.ENDED, Step.FINISHED]
    assert (second[-1].outcome, second[-1].meaning) == (Outcome.REJECTED, "ERR_INVALID_TRUNK")


async def test_a_reader_of_progress_that_does_not_read_holds_nothing_up(autojump_clock: MockClock) -> None:
    async with Exchange().session() as session:
        running = campaign(session, rows(20))
        lazy = running.progress(bound=10)
        result = await running.run()
        assert result.complete
        assert lazy.dropped == 20 * 6 - 10
        assert [record.step async for record in lazy][-1] is Step.FINISHED


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"trunk_id": ""}, r"line 2: \+15550200000 has no trunk, and neither has the campaign"),
        ({"calls_per_second": 0}, "calls_per_second must be more than 0"),
        ({"max_concurrent": 0}, "max_concurrent must be 1 or more"),
        ({"answer_within": 0}, "answer_within must be more than 0"),
    ],
)
async def test_a_campaign_that_makes_no_sense_is_refused(
    options: dict[str, Any], complaint: str, autojump_clock: MockClock
) -> None:
    async with Exchange().session() as session:
        with pytest.raises(ValueError, match=complaint):
            campaign(session, rows(1), **options)


async def test_a_campaign_runs_once(autojump_clock: MockClock) -> None:
    async with Exchange().session() as session:
        running = campaign(session, rows(1))
        await running.run()
        with pytest.raises(RuntimeError, match="run once"):
            await running.run()


# -- with the embedded gateway --------------------------------------------------------------------------------------


async def test_the_far_ends_of_the_embedded_gateway_each_get_their_outcome(autojump_clock: MockClock) -> None:
    file = b"""\
to,what
+15550100001,echo
+15550100016,hangs up
+15550100017,busy
+15550100018,nobody responds
+15550100019,nobody answers
+15550100403,rate limited
+15550100401,no such trunk
+15550100501,no reply but a call
+15550100502,no reply and no call
+15550100731,fails
"""
    spoken: dict[str, int] = {}

    async def speak(call: ActiveCall, row: CampaignRow) -> None:
        await call.send_audio(call.codec.silence * 10)
        await call.wait_played()
        spoken[row.data["what"]] = call.statistics().packets_sent

    async with simulated(rpc_timeout=5) as (session, gateway):
        result = await campaign(session, read_numbers(file), speak, retry=RetryPolicy(attempts=2, pause=10)).run()
        await trio.sleep(5)
        assert gateway.statistics().model.calls_open == 0
    assert {row.row.data["what"]: (row.outcome, row.cause, len(row.attempts)) for row in result.rows} == {
        "echo": (Outcome.ANSWERED, 16, 1),
        "hangs up": (Outcome.ANSWERED, 16, 1),
        "busy": (Outcome.UNANSWERED, 17, 2),
        "nobody responds": (Outcome.UNANSWERED, 18, 2),
        "nobody answers": (Outcome.UNANSWERED, 19, 2),
        "rate limited": (Outcome.REJECTED, None, 2),
        "no such trunk": (Outcome.REJECTED, None, 1),
        "no reply but a call": (Outcome.ANSWERED, 16, 1),
        "no reply and no call": (Outcome.UNKNOWN, None, 1),
        "fails": (Outcome.UNANSWERED, 31, 1),
    }
    assert spoken == {"echo": 10, "hangs up": 10, "no reply but a call": 10}


async def test_a_gateway_with_a_limit_of_its_own_is_called_at_its_pace_in_the_end(autojump_clock: MockClock) -> None:
    numbers = [CampaignRow(to="+15550100001") for _ in range(30)]
    policy = RetryPolicy(attempts=10, rejected_pause=1)
    async with simulated(GatewaySettings(calls_per_second=5)) as (session, _):
        result = await campaign(session, numbers, calls_per_second=20, max_concurrent=30, retry=policy).run()
    assert outcomes(result) == [Outcome.ANSWERED] * 30
    assert result.attempts > 30


async def test_a_hundred_numbers_over_thirty_lines(autojump_clock: MockClock) -> None:
    ends = ["+15550100001", "+15550100016", "+15550100017", "sip:no-answer@example.com"]
    numbers = [CampaignRow(to=ends[index % 4], line=index + 2) for index in range(100)]
    async with simulated() as (session, gateway):
        result = await campaign(
            session, numbers, calls_per_second=50, max_concurrent=30, retry=RetryPolicy(attempts=2, pause=2)
        ).run()
        assert session.statistics().calls_open == 0
        assert gateway.statistics().model.calls_open == 0
    assert [line.numbers for line in result.outcomes] == [50, 25, 25]
    assert result.attempts == 150
