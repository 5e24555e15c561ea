"""``agentao-trio history`` as a user meets it, on a file of real calls."""

from __future__ import annotations

import csv
import functools
import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from agentao_trio import messages
from agentao_trio.cli import history_export
from agentao_trio.cli.live import _follow
from agentao_trio.conformance.requirements import REQUIREMENTS
from agentao_trio.errors import CallEnded
from agentao_trio.history import CallFilter, open_history
from agentao_trio.hub import Hub
from agentao_trio.live.feed import Feed
from agentao_trio.messages import CallEvent, EventType
from agentao_trio.records import Record, RecordKind
from agentao_trio.store import open_store
from tests.integration.conftest import Run
from tests.support.programs import said
from tests.support.simulated import simulated

ECHO, BUSY = "+15550100001", "+15550100017"


@pytest.fixture
def run(run: Run) -> Run:
    """Run ``agentao-trio history``."""
    return functools.partial(run, "history")


async def _make_calls(path: Path) -> None:
    async with open_store(path) as store:
        hub = Hub()
        store.attach(hub)
        async with simulated(hub=hub) as (session, _):
            for number in (ECHO, BUSY):
                async with await session.originate(number, trunk_id="main", call_from="+15550109999") as call:
                    try:
                        await call.wait_answered()
                        await trio.sleep(1.2)
                    except CallEnded:
                        assert number == BUSY


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A history of one call that was answered and one that was busy."""
    path = tmp_path_factory.mktemp("history") / "calls.db"
    trio.run(_make_calls, path, clock=MockClock(autojump_threshold=0))
    return path.read_bytes()


@pytest.fixture
def file(tmp_path: Path, recorded: bytes) -> Path:
    path = tmp_path / "calls.db"
    path.write_bytes(recorded)
    return path


def test_calls_are_listed_and_found(run: Run, file: Path) -> None:
    status, out, _ = run("list", "calls.db")
    assert status == 0
    assert all(len(line.rstrip()) < 80 for line in out.splitlines())
    assert re.search(rf"{re.escape(BUSY)}\s+busy\s+17", out)
    assert re.search(rf"{re.escape(ECHO)}\s+completed\s+16", out)
    _, out, _ = run("list", "calls.db", "--cause", "17", "--json")
    [call] = map(json.loads, out.splitlines())
    assert (call["callee"], call["status"]) == (BUSY, "busy")
    _, out, _ = run("show", "calls.db", call["call_sid"][:8])
    assert "17 (User busy)" in out
    assert "CHANNEL_HANGUP_COMPLETE" in out
    assert run("list", "calls.db", "--since", "1d", "--number", "999999999")[1] == "no call matches\n"
    assert run("show", "calls.db", "nobody")[0] != 0
    assert run("list", "calls.db", "--since", "yesterday")[0] != 0


def test_figures_as_tables_json_and_a_page(run: Run, file: Path) -> None:
    assert "2 calls (0 inbound, 2 outbound, 0 open)" in run("stats", "calls.db")[1]
    assert json.loads(run("stats", "calls.db", "--json")[1])["answered"] == 1
    assert "answered,1" in run("stats", "calls.db", "--csv")[1].splitlines()
    status, out, _ = run("report", "calls.db", "--out", "report.html", "--title", "Two calls")
    assert (status, out) == (0, "wrote report.html\n")
    page = (file.parent / "report.html").read_text()
    assert "<h1>Two calls</h1>" in page
    assert "User busy" in page
    status, _, err = run("report", "calls.db", "--out", "no/where.html")
    assert status != 0
    assert "--out: no/where.html: No such file" in err


def test_exports_hold_everything(run: Run, file: Path) -> None:
    with open_history(file) as history:
        records = list(history.records())
        calls = list(history.calls())
    _, out, _ = run("export", "calls.db")
    assert [json.loads(line) for line in out.splitlines()] == [record.as_json() for record in records]
    assert run("export", "calls.db", "--what", "calls", "--format", "csv", "--out", "calls.csv")[0] == 0
    with (file.parent / "calls.csv").open(newline="") as table:
        assert [row["callee"] for row in csv.DictReader(table)] == [ECHO, BUSY]
    parquet = pytest.importorskip("pyarrow.parquet")
    assert run("export", "calls.db", "--format", "parquet", "--what", "calls", "--out", "calls.parquet")[0] == 0
    assert parquet.read_table(file.parent / "calls.parquet").to_pylist() == [attrs.asdict(call) for call in calls]
    assert run("export", "calls.db", "--format", "parquet", "--out", "records.parquet")[0] == 0
    assert parquet.read_table(file.parent / "records.parquet").num_rows == len(records)


def test_a_call_is_replayed_and_what_comes_out_differently_is_said(run: Run, file: Path) -> None:
    sid = json.loads(run("list", "calls.db", "--cause", "16", "--json")[1])["call_sid"]
    status, out, _ = run("replay", "calls.db", sid, "--speed", "0")
    assert status == 0
    assert "CHANNEL_ANSWER" in out
    assert re.search(r"\d+ records over 1\.\d s", out)


def test_all_calls_are_replayed_and_those_of_a_filter(run: Run, file: Path) -> None:
    with open_history(file) as history:
        everything, busy = len(list(history.records())), next(history.calls(CallFilter(cause=17)))
    status, out, _ = run("replay", "calls.db", "--speed", "0")
    assert (status, out.splitlines()[-1].split()[0]) == (0, str(everything))
    _, out, _ = run("replay", "calls.db", "--speed", "0", "--cause", "17")
    *lines, total = out.splitlines()
    assert total.split()[0] == str(busy.records) == str(len(lines))
    assert all(busy.call_sid[:8] in line for line in lines)
    assert run("replay", "calls.db", "--speed", "0", "--cause", "99")[1].startswith("0 records")


def test_parquet_is_written_a_batch_at_a_time(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(history_export, "ROWS_TOGETHER", 4)
    assert run("export", "calls.db", "--format", "parquet", "--out", "records.parquet")[0] == 0
    written = parquet.ParquetFile(file.parent / "records.parquet")
    with open_history(file) as history:
        records = [record.as_json() for record in history.records()]
    assert written.num_row_groups == -(-len(records) // 4)
    rows = written.read().to_pylist()
    assert [{**row, "data": json.loads(row["data"])} for row in rows] == [{"raw": None, **each} for each in records]
    status, _, err = run("export", "calls.db", "--format", "parquet", "--out", "no/where.parquet")
    assert (status, "no/where.parquet" in err) == (2, True)


def test_a_good_gateway_is_judged_good_and_a_bad_one_is_found_out(run: Run, file: Path, tmp_path: Path) -> None:
    status, out, _ = run("judge", "calls.db")

    assert status == 0
    assert re.search(r"EVT-01\s+pass", out)
    assert re.search(r"SUB-02\s+pass", out)
    assert "fail" not in out
    # What events alone cannot show is said, and not passed over.
    assert "not judged: SUB-01: which streams events came on is not stored" in out

    async def break_a_rule() -> None:
        async with open_store(tmp_path / "bad.db") as store:
            hub = Hub()
            store.attach(hub)
            for kind in (EventType.CHANNEL_HANGUP_COMPLETE, EventType.CHANNEL_ANSWER, EventType.CHANNEL_CREATE):
                raw = messages.encode(CallEvent(call_sid="backwards", event_type=kind))
                hub.publish(RecordKind.EVENT, "backwards", raw=raw, verdict="violation", event={})

    trio.run(break_a_rule)
    status, out, _ = run("judge", "bad.db", "backwards")
    assert status == 1
    assert re.search(r"EVT-01\s+fail", out)
    assert "not judged: SUB-02: what was subscribed to was not stored" in out


def test_an_event_for_somebody_else_is_found_out(run: Run, tmp_path: Path) -> None:
    async def write() -> None:
        async with open_store(tmp_path / "bad.db") as store:
            hub = Hub()
            store.attach(hub)
            hub.publish(RecordKind.SESSION, state="connected", client_id="me")
            for client_id in ("me", "another"):
                raw = messages.encode(CallEvent(call_sid="c", event_type=EventType.CHANNEL_HOLD, client_id=client_id))
                hub.publish(RecordKind.EVENT, "c", raw=raw, verdict="in_order", event={})

    trio.run(write)
    _, out, _ = run("judge", "bad.db")
    assert re.search(r"SUB-02\s+fail", out)
    assert "seen client_id 'another'" in out


def test_a_replay_can_be_watched_in_the_browser(file: Path) -> None:
    with open_history(file) as history:
        sid = next(history.calls()).call_sid
    command = [sys.executable, "-u", "-m", "agentao_trio", "history", "replay", str(file), sid, "--live", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        with urllib.request.urlopen(url, timeout=120) as page:
            assert b"<html" in page.read()
        said(process.stdout, "records over")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 128 + signal.SIGINT


def test_old_calls_are_pruned(run: Run, file: Path) -> None:
    assert run("prune", "calls.db", "--older-than", "1h")[1] == "0 calls deleted\n"
    assert run("prune", "calls.db", "--max-bytes", "0")[1] == "2 calls deleted\n"
    assert run("list", "calls.db")[1] == "no call matches\n"
    assert run("prune", "calls.db")[0] != 0


def test_a_running_session_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"

    async def follow() -> str:
        async with open_store(path) as store:
            hub = Hub()
            store.attach(hub)
            command = [sys.executable, "-u", "-m", "agentao_trio", "history", "tail", str(path), "--json"]
            async with await trio.open_file(tmp_path / "out.txt", "w") as out:
                process = await trio.lowlevel.open_process(command, stdout=out.wrapped)
                text = ""
                with trio.fail_after(120):
                    while not text:  # it follows from when it has come up
                        hub.publish(RecordKind.GAP, "call", packets=7)
                        await store.flush()
                        await trio.sleep(0.1)
                        text = await trio.Path(tmp_path / "out.txt").read_text()
                process.send_signal(signal.SIGINT)
                assert await process.wait() == 0
        return text

    first = json.loads(trio.run(follow).splitlines()[0])
    assert (first["call_sid"], first["data"]) == ("call", {"packets": 7})


async def test_the_live_page_follows_every_program_that_writes(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    began: dict[str, Any] = {"phase": "began", "direction": "inbound", "caller": "100", "callee": "200"}
    async with open_store(path) as store, trio.open_nursery() as nursery:
        first, second = Hub(), Hub()
        for number in range(50):  # the first has much to tell before the second begins to
            if not number:
                store.attach(first)
            first.publish(RecordKind.CALL, f"old-{number}", **began)
        store.attach(second)
        second.publish(RecordKind.CALL, "new", **began)
        await store.flush()
        hub, feed = Hub(), Feed("epoch")

        def read(record: Record) -> None:
            feed.record(record)

        hub.attach(read)
        with open_history(path) as history:
            nursery.start_soon(_follow, history, hub)
            first.publish(RecordKind.CALL, "shared", **began)
            second.publish(RecordKind.CALL, "shared", **began)
            second.publish(RecordKind.CALL, "shared", phase="over", how="released")
            first.publish(RecordKind.QUALITY, "shared", mos=4.0, final=False)
            with trio.fail_after(20):
                while feed.calls().get("shared", {}).get("status") != "in-progress":
                    await trio.sleep(0.05)
            assert feed.calls().keys() == {*(f"old-{number}" for number in range(50)), "new", "shared"}
            nursery.cancel_scope.cancel()


def test_every_rule_that_holds_of_any_trace_is_judged_or_said_not_to_be() -> None:
    from agentao_trio.cli.history_judge import judge, not_told

    anywhere = {rule.id for rule in REQUIREMENTS.values() if rule.everywhere}
    judged = {each.rule.id for each in judge([])}
    assert judged | not_told([]).keys() == anywhere
    assert not judged & not_told([]).keys()
    # What a history holds are events: no other rule can be judged by it.
    assert {name.partition("-")[0] for name in judged} == {"EVT", "SER", "SUB"}
