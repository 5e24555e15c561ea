"""History in a real file: what is acknowledged stays, whatever happens, and can be read, replayed, pruned."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from agentao_trio.errors import CallEnded
from agentao_trio.history import CallFilter, open_history
from agentao_trio.hub import Hub
from agentao_trio.records import Record, RecordKind
from agentao_trio.redaction import Redaction
from agentao_trio.replay import Together, replay, replay_together, replayed
from agentao_trio.store import MIGRATIONS, VERSION, Retention, StoreError, open_store
from agentao_trio.summaries import CallSummary
from tests.support.simulated import simulated

ECHO, BUSY, HOLD = "+15550100001", "+15550100017", "+15550100006"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.db"


def stored(path: Path) -> list[Record]:
    with open_history(path) as history:
        return list(history.records())


async def make_calls(path: Path, *numbers: str) -> list[Record]:
    """Real calls, recorded; returns what passed the hub."""
    published: list[Record] = []
    hub = Hub()
    hub.attach(published.append)
    async with open_store(path) as store:
        store.attach(hub, name="test")
        async with simulated(hub=hub) as (session, _):
            for number in numbers:
                async with await session.originate(number, trunk_id="main", call_from="+15550109999") as call:
                    try:
                        await call.wait_answered()
                        await trio.sleep(1.5)
                    except CallEnded:
                        assert number == BUSY
    return published


# -- what is written is what was published ------------------------------------------------------------------------


async def test_everything_that_passes_the_hub_is_in_the_file(autojump_clock: MockClock, path: Path) -> None:
    published = await make_calls(path, ECHO, BUSY, HOLD)
    assert stored(path) == published
    with open_history(path) as history:
        echo, busy, hold = history.calls()
        assert (echo.status, echo.callee, echo.direction, echo.q850_cause) == ("completed", ECHO, "outbound", 16)
        assert echo.seconds_talked == pytest.approx(1.5, abs=0.2)
        assert (busy.status, busy.q850_cause, busy.answered_at) == ("busy", 17, None)
        assert [call.callee for call in history.calls(CallFilter(cause=17))] == [BUSY]
        assert [call.callee for call in history.calls(CallFilter(number=HOLD[-4:]))] == [HOLD]
        assert list(history.calls(CallFilter(trunk="elsewhere"))) == []
        assert history.call(hold.call_sid[:8]) == hold
        assert {record.call_sid for record in history.records(which=CallFilter(status="busy"))} == {busy.call_sid}


async def test_a_flush_returns_when_everything_before_it_is_in_the_file(path: Path) -> None:
    async with open_store(path) as store:
        hub = Hub()
        store.attach(hub)
        for number in range(1, 50):
            hub.publish(RecordKind.GAP, "call", packets=number)
            if number % 7 == 0:
                await store.flush()
                assert len(stored(path)) == number
        assert store.statistics().records_waiting == 0
    assert [record.data["packets"] for record in stored(path)] == list(range(1, 50))


async def test_a_cancelled_program_still_writes_what_waits(path: Path) -> None:
    with trio.CancelScope() as scope:
        async with open_store(path) as store:
            hub = Hub()
            store.attach(hub)
            hub.publish(RecordKind.GAP, "call", packets=1)
            scope.cancel()
            await store.flush()
    assert len(stored(path)) == 1


async def test_reading_goes_on_while_others_write(path: Path) -> None:
    async with open_store(path) as store:
        hub = Hub()
        store.attach(hub)
        with open_history(path) as history:
            for _ in range(5):
                hub.publish(RecordKind.GAP, "call", packets=1)
                position = history.position()
                await store.flush()
                assert [record.data for _, record in history.news(position)] == [{"packets": 1}]
                assert history.news(position) == []


async def test_whoever_follows_hears_of_every_program_that_writes(path: Path) -> None:
    async with open_store(path) as store:
        hubs = [Hub(), Hub()]
        for hub in hubs:
            store.attach(hub)
        with open_history(path) as history:
            position = history.position()
            heard: list[int] = []
            for number in range(6):
                hubs[number % 2].publish(RecordKind.GAP, "call", packets=number)
                await store.flush()
                heard += [record.data["packets"] for _, record in history.news(position)]
            assert heard == list(range(6)), "an older run's, too, when a younger one has written"
            hubs[0].publish(RecordKind.GAP, "call", packets=6)
            hubs[1].publish(RecordKind.GAP, "call", packets=7)
            await store.flush()
            assert [record.data["packets"] for _, record in history.news(position)] == [6, 7]
            assert [record.data["packets"] for _, record in history.with_runs(by_time=True)] == list(range(8))


# -- crashes ----------------------------------------------------------------------------------------------------------

WRITER = """
    import sys, trio
    from agentao_trio.hub import Hub
    from agentao_trio.records import RecordKind
    from agentao_trio.store import open_store

    async def main():
        async with open_store(sys.argv[1]) as store:
            hub = Hub()
            store.attach(hub)
            number = 0
            while True:
                for _ in range(20):
                    number += 1
                    hub.publish(RecordKind.GAP, f"call-{number % 5}", packets=number)
                await store.flush()
                print(number, flush=True)

    trio.run(main)
"""


def test_nothing_acknowledged_is_lost_when_the_writer_is_killed(path: Path) -> None:
    rng = random.Random(5)
    acknowledged: list[int] = []
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            last = int(writer.stdout.readline())
            time.sleep(rng.random() * 0.1)
            os.kill(writer.pid, signal.SIGKILL)
            for line in writer.stdout:
                if line.endswith("\n"):
                    last = int(line)
        acknowledged.append(last)
    with open_history(path) as history:
        runs: dict[int, list[int]] = {}
        for run, record in history.with_runs():
            assert record.data["packets"] == record.number
            runs.setdefault(run, []).append(record.number)
        assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in runs.values())
        assert all(len(numbers) >= last for numbers, last in zip(runs.values(), acknowledged, strict=True))
        assert sum(call.records for call in history.calls()) == sum(map(len, runs.values()))


# -- files that cannot be used ------------------------------------------------------------------------------------


async def refuses(path: Path) -> str:
    before = path.read_bytes()
    with pytest.raises(StoreError) as caught:
        async with open_store(path):
            pass
    with pytest.raises(StoreError), open_history(path):
        pass
    assert path.read_bytes() == before
    return str(caught.value)


async def test_a_file_that_is_no_database_is_refused_and_kept(path: Path) -> None:
    path.write_text("Dear diary, …" * 100)
    assert "not a history file" in await refuses(path)


async def test_somebody_elses_database_is_refused_and_kept(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE accounts (name)")
    database.close()
    assert "something else" in await refuses(path)


async def test_a_newer_file_is_refused_and_kept(path: Path) -> None:
    async with open_store(path):
        pass
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {VERSION + 1}")
    database.close()
    assert "newer version" in await refuses(path)


async def test_a_damaged_file_is_refused_and_kept(path: Path) -> None:
    async with open_store(path) as store:
        hub = Hub()
        store.attach(hub)
        for _ in range(2000):
            hub.publish(RecordKind.GAP, "call", packets=1)
    data = bytearray(path.read_bytes())
    data[8192:16384] = random.Random(1).randbytes(8192)
    path.write_bytes(data)
    assert "damaged" in await refuses(path)


async def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no directory"):
        async with open_store(tmp_path / "nowhere" / "calls.db"):
            pass


async def test_an_older_file_is_migrated_with_everything_in_it(autojump_clock: MockClock, path: Path) -> None:
    published = await make_calls(path, ECHO, BUSY)
    with open_history(path) as history:
        calls = list(history.calls())
    database = sqlite3.connect(path)
    database.execute("DROP TABLE calls")
    database.execute("PRAGMA user_version = 1")
    database.commit()
    database.close()
    assert len(MIGRATIONS) == 2
    with pytest.raises(StoreError, match="older version"), open_history(path):
        pass
    async with open_store(path):
        pass
    assert stored(path) == published
    with open_history(path) as history:
        assert list(history.calls()) == calls


async def test_many_programs_may_make_the_file_at_once(path: Path) -> None:
    async def make(number: int) -> None:
        async with open_store(path) as store:
            hub = Hub()
            store.attach(hub, name=f"worker {number}")
            hub.publish(RecordKind.GAP, f"call {number}", packets=number)

    for _ in range(5):
        path.unlink(missing_ok=True)
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(make, number)
        assert sorted(record.data["packets"] for record in stored(path)) == list(range(8))


# -- bounds -----------------------------------------------------------------------------------------------------------


async def test_a_disk_that_is_too_slow_costs_the_newest_records_and_they_are_counted(path: Path) -> None:
    async with open_store(path, max_waiting=10_000) as store:
        hub = Hub()
        store.attach(hub)
        for number in range(100):
            hub.publish(RecordKind.GAP, "call", packets=number)
        dropped = store.statistics().records_dropped
        assert dropped > 50
        await store.flush()
        hub.publish(RecordKind.GAP, "call", packets=100)
    numbers = [record.number for record in stored(path)]
    assert numbers == [*range(1, 101 - dropped), 101]  # the file shows how many are missing, and where


async def test_a_disk_that_fails_is_tried_again(path: Path) -> None:
    async with open_store(path) as store:
        hub = Hub()
        store.attach(hub)
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        store._database.execute("PRAGMA busy_timeout = 10")
        hub.publish(RecordKind.GAP, "call", packets=1)
        while not store.statistics().failures:
            await trio.sleep(0.01)
        assert "locked" in store.statistics().failure
        blocker.execute("ROLLBACK")
        blocker.close()
        await store.flush()
        assert store.statistics().failure == ""
    assert len(stored(path)) == 1


async def test_old_calls_go_whole_and_open_ones_stay(path: Path) -> None:
    async with open_store(path, retention=Retention(max_age=3600)) as store:
        hub = Hub()
        store.attach(hub)
        for sid, ended in (("old", True), ("open", False)):
            hub.relay(record(1 if ended else 3, sid, "began", at=1000.0))
            if ended:
                hub.relay(record(2, sid, "over", at=1010.0))
        hub.relay(record(4, "new", "began", at=time.time()))
        hub.relay(record(5, "new", "over", at=time.time()))
        await store.flush()
        while not store.statistics().calls_pruned:
            await trio.sleep(0.01)
    with open_history(path) as history:
        assert sorted(call.call_sid for call in history.calls()) == ["new", "open"]
        assert {each.call_sid for each in history.records()} == {"new", "open"}


async def test_a_file_that_is_too_large_loses_its_oldest_calls(path: Path) -> None:
    async with open_store(path, retention=Retention(max_bytes=300_000)) as store:
        hub = Hub()
        store.attach(hub)
        number = 0
        for call in range(500):
            for phase in ("began", *["noise"] * 10, "over"):
                number += 1
                hub.relay(record(number, f"call-{call:03}", phase, at=1000.0 + call))
        await store.flush()
        while not store.statistics().calls_pruned:
            await trio.sleep(0.01)
    with open_history(path) as history:
        left = [call.call_sid for call in history.calls()]
    assert 0 < len(left) < 500
    assert left == [f"call-{call:03}" for call in range(500 - len(left), 500)]


def record(number: int, call_sid: str, phase: str, *, at: float) -> Record:
    return Record(number=number, at=at, call_sid=call_sid, kind=RecordKind.CALL, data={"phase": phase, "how": "left"})


async def test_words_and_numbers_are_left_out_where_the_policy_says_so(path: Path) -> None:
    policy = Redaction(transcripts="drop", numbers="mask")
    async with open_store(path, redaction=policy) as store:
        hub = Hub()
        store.attach(hub)
        hub.publish(RecordKind.CALL, "c", phase="began", caller="+15550101234", callee="sip:alice@example.com")
        hub.publish(RecordKind.COMMAND, "c", phase="sent", request={"to": "+15550101234", "trunk_id": "15550105678"})
        hub.publish(RecordKind.TRANSCRIPT, "c", role="user", text="my passphrase is 1234", phase="final")
        hub.publish(RecordKind.TOOL, "c", name="pay", phase="requested", arguments='{"passphrase": 1234}')
    data = b"".join(each.read_bytes() for each in path.parent.glob("calls.db*"))
    for secret in (b"passphrase", b"1234", b"alice"):  # none that a number and the word after it could spell
        assert secret not in data
    began, command, words, tool = stored(path)
    assert (began.data["caller"], began.data["callee"]) == ("…34", "sip:…@example.com")
    assert command.data["request"] == {"to": "…34", "trunk_id": "15550105678"}
    assert words.data["text"] == "[21 characters]"
    assert tool.data["arguments"] == "[20 characters]"


async def test_keys_that_were_sent_go_with_the_words(autojump_clock: MockClock, path: Path) -> None:
    policy = Redaction(transcripts="drop", numbers="mask")
    async with open_store(path, redaction=policy) as store, simulated() as (session, _):
        store.attach(session.hub)
        async with await session.originate(ECHO, trunk_id="main") as call:
            await call.wait_answered()
            await call.send_dtmf("47#")
            await call.mute(wire=True)
    requests = [record.data["request"] for record in stored(path) if "request" in record.data]
    assert [each["app_args"] for each in requests if "app_args" in each] == [
        *["[1 characters]:rfc2833:200"] * 3,
        "wire",
    ]


KEYS = {"default_app": "SEND_DTMF", "default_app_args": "4719:rfc2833:200"}


@pytest.mark.parametrize(
    ("kind", "data", "kept"),
    [
        (
            RecordKind.COMMAND,
            {"request": KEYS},
            {"request": {**KEYS, "default_app_args": "[4 characters]:rfc2833:200"}},
        ),
        (
            RecordKind.COMMAND,
            {"request": {"default_app_args": "+15550101234"}},
            {"request": {"default_app_args": "…34"}},
        ),
        (RecordKind.COMMAND, {"error": "no way to +15550101234"}, {"error": "no way to …34"}),
        (RecordKind.ERROR, {"source": "tool", "message": "1234"}, {"source": "tool", "message": "[4 characters]"}),
        (
            RecordKind.ERROR,
            {"source": "handler", "message": "1234"},
            {"source": "handler", "message": "[4 characters]"},
        ),
        (RecordKind.ERROR, {"source": "media", "message": "no base64"}, {"source": "media", "message": "no base64"}),
        (
            RecordKind.CALL,
            {"error": "the call to sip:ada@example.com ended"},
            {"error": "the call to sip:…@example.com ended"},
        ),
    ],
)
def test_what_is_left_of_a_record_where_words_and_numbers_go(
    kind: RecordKind, data: dict[str, Any], kept: dict[str, Any]
) -> None:
    record = Record(number=1, at=0.0, call_sid="c", kind=kind, data=data)
    assert Redaction(transcripts="drop", numbers="mask").of(record).data == kept
    assert Redaction().of(record) is record


# -- again ----------------------------------------------------------------------------------------------------------


async def test_a_replayed_call_equals_the_live_one_record_for_record(autojump_clock: MockClock, path: Path) -> None:
    published = await make_calls(path, ECHO, BUSY, HOLD)
    hub = Hub()
    again: list[Record] = []
    hub.attach(again.append)
    began = trio.current_time()
    report = await replay(stored(path), hub, speed=2.0)
    assert again == published
    assert report.differences == ()
    assert trio.current_time() - began == pytest.approx(report.seconds / 2)


async def test_a_record_that_comes_out_differently_is_reported(autojump_clock: MockClock, path: Path) -> None:
    published = await make_calls(path, ECHO)
    tampered = [
        attrs.evolve(each, data={**each.data, "verdict": "gap"}) if each.kind is RecordKind.EVENT else each
        for each in published
    ]
    report = await replay(tampered, Hub(), speed=None)
    assert [difference.stored.kind for difference in report.differences] == [RecordKind.EVENT] * 3
    broken = [attrs.evolve(each, raw=b"?") if each.kind is RecordKind.EVENT else each for each in published]
    assert [again for _, again in replayed(broken) if again is None] == [None] * 3


async def test_a_replay_needs_a_speed_that_moves(autojump_clock: MockClock) -> None:
    with pytest.raises(ValueError, match="positive"):
        await replay([], Hub(), speed=0)


def test_a_summary_is_plain_data() -> None:
    call = CallSummary(call_sid="c", began_at=1.0)
    assert CallSummary(**json.loads(json.dumps(attrs.asdict(call)))) == call


def of(number: int, kind: RecordKind, call_sid: str, **data: Any) -> Record:
    return Record(number=number, at=1000.0 + number, call_sid=call_sid, kind=kind, data=data)


def test_several_workers_told_of_one_call_are_as_one() -> None:
    began = {"phase": "began", "direction": "inbound"}
    told = [
        (1, of(1, RecordKind.CALL, "c", **began)),
        (2, of(1, RecordKind.CALL, "c", **began)),
        (2, of(2, RecordKind.CALL, "c", phase="over", how="released")),
        (1, of(2, RecordKind.SPEECH, "c", speaker="user", active=True)),
        (1, of(3, RecordKind.CALL, "c", phase="over", how="released")),
        (3, of(1, RecordKind.CALL, "d", phase="over", how="released")),
    ]
    together = Together()
    handed = [each for run, record in told if (each := together.take(run, record)) is not None]
    assert [record.number for record in handed] == [1, 2, 3, 4, 5], "numbered anew"
    assert [record.data.get("how") for record in handed] == [None, None, None, "released", "released"]


async def test_a_replay_of_several_runs_is_one_story(path: Path, autojump_clock: MockClock) -> None:
    async with open_store(path) as store:
        hubs = [Hub(), Hub()]
        for number, hub in enumerate(hubs):
            store.attach(hub)
            hub.publish(RecordKind.GAP, "call", packets=number)
            await trio.sleep(1)
        await store.flush()
    seen: list[Record] = []
    again = Hub()
    again.attach(seen.append)
    with open_history(path) as history:
        began = trio.current_time()
        report = await replay_together(history.with_runs(by_time=True), again, speed=2.0)
    assert [(record.number, record.data["packets"]) for record in seen] == [(1, 0), (2, 1)]
    assert (report.records, report.differences) == (2, ())
    assert trio.current_time() - began == pytest.approx(0.5, abs=0.05)
