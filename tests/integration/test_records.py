"""What passes a session's hub during calls, as history and dashboards get it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from agentao_trio import messages
from agentao_trio.analytics import Analysis
from agentao_trio.callstate import Verdict
from agentao_trio.chronicle import _fields
from agentao_trio.errors import CallEnded
from agentao_trio.events import Ingest
from agentao_trio.hub import Hub
from agentao_trio.records import Record, RecordKind, plain
from agentao_trio.session import Session
from agentao_trio.summaries import summarised
from agentao_trio.testing import MemoryNetwork
from tests.support.simulated import simulated

ECHO, BUSY, TONE = "+15550100001", "+15550100017", "+15550100002"


def of(records: list[Record], kind: RecordKind) -> list[Record]:
    return [record for record in records if record.kind is kind]


async def one_call(session: Session, path: Path) -> None:
    async with await session.originate(ECHO, trunk_id="main", call_from="+15550109999") as call:
        await call.wait_answered()
        async with call.record(path):
            await call.send_audio(bytes(160) * 100)
            await trio.sleep(2.5)


async def test_a_call_is_told_from_its_beginning_to_its_end(autojump_clock: MockClock, tmp_path: Path) -> None:
    hub = Hub()
    records: list[Record] = []
    hub.attach(records.append)
    async with simulated(hub=hub) as (session, _):
        await one_call(session, tmp_path / "call.wav")
    assert [record.number for record in records] == list(range(1, len(records) + 1))
    assert all(one.at <= two.at for one, two in itertools.pairwise(records))
    assert [record.data["state"] for record in of(records, RecordKind.SESSION)] == ["connected", "closed"]
    began, over = of(records, RecordKind.CALL)
    assert (began.data["phase"], began.data["direction"], began.data["callee"]) == ("began", "outbound", ECHO)
    assert began.data["trunk_id"] == "main"
    assert (over.data["phase"], over.data["how"]) == ("over", "hangup")
    assert over.data["statistics"]["packets_sent"] >= 100
    events = of(records, RecordKind.EVENT)
    assert [record.data["event"]["event_type"] for record in events] == [
        "CHANNEL_CREATE",
        "CHANNEL_ANSWER",
        "CHANNEL_HANGUP_COMPLETE",
    ]
    assert {record.call_sid for record in records if record.kind is not RecordKind.SESSION} == {began.call_sid}
    commands = [(each.data["method"], each.data["phase"]) for each in of(records, RecordKind.COMMAND)]
    assert commands[:3] == [("Originate", "sent"), ("Originate", "answered"), ("Terminate", "sent")]
    quality = of(records, RecordKind.QUALITY)
    assert [each.data["final"] for each in quality] == [*[False] * (len(quality) - 1), True]
    assert len(quality) >= 3
    recordings = [each.data["status"] for each in of(records, RecordKind.RECORDING)]
    assert (recordings[0], recordings[-1]) == ("started", "completed")
    assert set(recordings[1:-1]) == {"in-progress"}


@pytest.mark.parametrize("delay", [0.0, 0.05])
async def test_calls_that_are_hung_up_have_no_command_in_vain(delay: float, autojump_clock: MockClock) -> None:
    network, analysis = MemoryNetwork(), Analysis()
    async with simulated(network=network) as (session, _):
        network.delay = delay
        session.hub.attach(analysis.feed)
        for _ in range(3):
            async with await session.originate(ECHO, trunk_id="main") as call:
                await call.wait_answered()
    counted = {name: (each.count, each.failed) for name, each in analysis.figures().commands.items()}
    assert counted == {"Originate": (3, 0), "Terminate": (3, 0)}


async def test_a_conference_that_the_agent_left_is_completed_and_the_same_in_lists_and_figures(
    autojump_clock: MockClock,
) -> None:
    records, analysis = list[Record](), Analysis()
    async with simulated() as (session, gateway):
        session.hub.attach(records.append)
        session.hub.attach(analysis.feed)
        call = await session.originate(TONE, trunk_id="main")
        await call.wait_answered()
        leg = await call.connect(ECHO)
        await trio.sleep(20)
        await call.close()
        assert analysis.figures().by_status == {"completed": 2}
        assert (analysis.figures().seconds_talked.most or 0) < 21
        await trio.sleep(10)
        gateway.hang_up(call.call_sid, 16)
        await trio.sleep(1)
    told, figures = summarised(records), analysis.figures()
    assert [(each.status, each.q850_cause) for each in told.values()] == [("completed", 16), ("completed", None)]
    assert (figures.calls, figures.open, figures.answered, figures.by_status) == (2, 0, 2, {"completed": 2})
    assert {cause: count for cause, (_, count) in figures.by_cause.items()} == {16: 1}
    talked = [told[sid].seconds_talked or 0 for sid in (call.call_sid, leg.call_sid)]
    assert talked == pytest.approx([30, 20], abs=0.5)
    assert (figures.seconds_talked.most, figures.seconds_talked.least) == (max(talked), min(talked))


async def test_there_is_no_estimate_of_a_call_in_which_nothing_was_heard(autojump_clock: MockClock) -> None:
    records: list[Record] = []
    async with simulated() as (session, _):
        session.hub.attach(records.append)
        async with await session.originate(ECHO, trunk_id="main") as call:
            await call.wait_answered()
            await trio.sleep(2.5)
        assert call.statistics().estimated_mos is None
    quality = of(records, RecordKind.QUALITY)
    assert len(quality) >= 3
    assert {each.data["mos"] for each in quality} == {None}
    assert of(records, RecordKind.EVENT)[-1].data["event"]["estimated_mos"] == 0


async def test_records_survive_json_and_their_bytes_give_the_same_verdicts(autojump_clock: MockClock) -> None:
    records: list[Record] = []
    async with simulated() as (session, _):
        session.hub.attach(records.append)
        for number in (ECHO, BUSY):
            with trio.move_on_after(5):
                async with await session.originate(number, trunk_id="main") as call:
                    try:
                        await call.wait_answered()
                    except CallEnded:
                        assert number == BUSY
    assert [Record.from_json(json.loads(json.dumps(record.as_json()))) for record in records] == records
    ingest = Ingest()
    for record in of(records, RecordKind.EVENT):
        again = ingest.event(record.raw, at=record.at)
        assert (again.verdict, again.call_sid) == (Verdict.IN_ORDER, record.call_sid)
        assert plain(again.event) == record.data["event"]


async def test_a_reader_that_left_hears_no_more_and_a_choosy_one_only_its_kinds(autojump_clock: MockClock) -> None:
    hub = Hub()
    everything: list[Record] = []
    errors: list[Record] = []
    stop = hub.attach(everything.append)
    hub.attach(errors.append, kinds=[RecordKind.ERROR])
    hub.publish(RecordKind.GAP, "one", packets=1)
    stop()
    stop()
    hub.publish(RecordKind.ERROR, "one", message="no")
    assert [record.kind for record in everything] == [RecordKind.GAP]
    assert [record.data for record in errors] == [{"message": "no"}]


async def test_nobody_listening_costs_no_number_and_no_data(autojump_clock: MockClock) -> None:
    hub = Hub()
    hub.publish(RecordKind.GAP, data=lambda: pytest.fail("nobody asked"))
    seen: list[Record] = []
    hub.attach(seen.append)
    hub.publish(RecordKind.GAP, packets=2)
    assert [record.number for record in seen] == [1]


def test_a_token_in_the_tenants_place_and_other_secrets_are_not_recorded() -> None:
    assert _fields(messages.OriginateRequest(tenant_id="eyJhbGciOi"))["tenant_id"] == "…"
    assert "auth_token" not in _fields(messages.SuperviseSubscribeRequest(auth_token="secret"))
