"""``agentao-trio history``: what each kind of record reads like, and what an export cannot hold."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import trio

from agentao_trio.hub import Hub
from agentao_trio.records import RecordKind
from agentao_trio.store import open_store
from tests.integration.conftest import Run


@pytest.fixture
def run(run: Run) -> Run:
    """Run ``agentao-trio history``."""
    return functools.partial(run, "history")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A call with words of either side; the gateway's event in it cannot have been what its bytes say."""
    path = tmp_path / "calls.db"

    async def main() -> None:
        async with open_store(path) as store:
            hub = Hub()
            store.attach(hub)
            hub.publish(RecordKind.CALL, "c1", phase="began", direction="inbound", caller="100", callee="200")
            hub.publish(RecordKind.TRANSCRIPT, "c1", phase="delta", role="user", text="Where is")
            hub.publish(RecordKind.TRANSCRIPT, "c1", phase="final", role="user", text="Where is my order?")
            event = {"event_type": "CHANNEL_ANSWER", "status": "ANSWERED"}
            hub.publish(RecordKind.EVENT, "c1", raw=b"?", data=lambda: {"verdict": "gap", "event": event})
            hub.publish(RecordKind.CALL, "c1", phase="over", how="hangup")

    trio.run(main)
    return path


@pytest.mark.usefixtures("file")
def test_words_are_told_with_who_said_them(run: Run) -> None:
    status, out, _ = run("show", "calls.db", "c1")
    assert status == 0
    assert "user: Where is …" in out
    assert "user: Where is my order? " in out
    assert "CHANNEL_ANSWER ANSWERED (gap)" in out


@pytest.mark.usefixtures("file")
def test_a_call_is_shown_to_programs_record_by_record(run: Run) -> None:
    status, out, _ = run("show", "calls.db", "c1", "--json")
    assert status == 0
    assert [json.loads(line)["kind"] for line in out.splitlines()] == [
        "call",
        "transcript",
        "transcript",
        "event",
        "call",
    ]


@pytest.mark.usefixtures("file")
def test_what_comes_out_differently_is_named_and_is_a_failure(run: Run) -> None:
    status, out, _ = run("replay", "calls.db", "c1", "--speed", "0")
    assert status == 1
    assert "record 4 comes out differently now" in out


@pytest.mark.usefixtures("file")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--format csv", "--format csv holds calls: add --what calls"),
        ("--format parquet --what calls", "--format parquet needs a file to write to: add --out FILE"),
    ],
)
def test_what_a_format_cannot_hold_is_said(options: str, words: str, run: Run) -> None:
    status, out, err = run("export", "calls.db", *options.split())
    assert (status, out) == (2, "")
    assert words in err
