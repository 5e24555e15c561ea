"""Whatever happens to the messages on their way, a client that keeps to its rule knows what the feed knows."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import agentao_trio
from agentao_trio.live.feed import Feed, LiveEvent
from agentao_trio.live.fold import Fold, Verdict
from agentao_trio.records import Record, RecordKind

FOLD_JS = Path(agentao_trio.__file__).parent / "live" / "page" / "fold.js"
SCRIPT = Path(__file__).parents[1] / "support" / "node" / "fold.mjs"

text = st.text(max_size=6)
name = st.sampled_from(["", "a", "b", "__proto__", "…"])


def fields(**values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of ``values``, each of them there or not."""
    return st.fixed_dictionaries({}, optional=values)


def of(kind: RecordKind, *, phase: str = "", **values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    phases = {"phase": st.sampled_from(phase.split())} if phase else {}
    return st.tuples(st.just(kind), st.builds(lambda a, b: {**a, **b}, st.fixed_dictionaries(phases), fields(**values)))


gateway_events = st.fixed_dictionaries(
    {
        "event_type": st.sampled_from(
            ["CHANNEL_CREATE", "CHANNEL_ANSWER", "CHANNEL_HOLD", "CHANNEL_RESUME", "CHANNEL_HANGUP_COMPLETE", 77]
        )
    },
    optional={
        "status": st.sampled_from(["RINGING", "INIT"]),
        "codec": name,
        "tenant_id": name,
        "trunk_id": name,
        "start_timestamp_ms": st.sampled_from([0, -1, 2**62, 1_700_000_000_000]),
        "q850_cause": st.sampled_from([0, 16, 17, 19, 41]),
        "packets_sent": st.integers(0, 9),
        "estimated_mos": st.one_of(st.none(), st.floats(1, 5)),
        "recording_url": name,
    },
)
endings = st.sampled_from(["", "hangup", "lost", "released", "released"])
happenings = st.one_of(
    of(RecordKind.CALL, phase="began renamed over", caller=name, callee=name, how=endings, call_sid_before=name),
    st.tuples(
        st.just(RecordKind.EVENT),
        st.fixed_dictionaries(
            {"verdict": st.sampled_from(["in_order", "gap", "violation", "duplicate"]), "event": gateway_events}
        ),
    ),
    of(RecordKind.QUALITY, mos=st.one_of(st.none(), st.floats(1, 5)), final=st.booleans(), codec=name),
    of(RecordKind.RECORDING, recording_sid=name, status=st.sampled_from(["started", "completed"]), location=name),
    of(RecordKind.DETECTION, answered_by=st.sampled_from(["human", "fax"]), confidence=st.floats(0, 1)),
    of(RecordKind.CONVERSATION, phase="connecting connected started renewed ended", reason=name, voice=name),
    of(RecordKind.TRANSCRIPT, phase="delta final", item_id=name, text=text, order=st.integers(0, 5)),
    of(RecordKind.TOOL, phase="requested done", name=name, tool_call_id=name, arguments=text),
    of(RecordKind.ERROR, source=name, message=text, fatal=st.booleans()),
    of(RecordKind.COMMAND, phase="sent refused", method=name, error=text),
    of(RecordKind.SPEECH, speaker=name, active=st.booleans()),
)
#: What becomes of the messages that one record makes, on their way to a client.
fates = st.sampled_from(["delivered", "delivered", "dropped", "twice", "late", "reconnect"])
sids = st.sampled_from(["a", "b", "__proto__"])
stories = st.lists(st.tuples(sids, happenings, fates), max_size=30)


class Client:
    """A client that keeps to its rule; ``told`` is every call of its fold."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.fold = Fold()
        self.told: list[list[Any]] = []
        self._late: list[LiveEvent] = []

    def enter(self) -> None:
        event = self._feed.snapshot(0.0)
        self.told.append(["snapshot", *copy.deepcopy(event.args)])
        self.fold.snapshot(*event.args)

    def hear(self, events: list[LiveEvent], fate: str) -> None:
        match fate:
            case "delivered":
                for event in [*self._late, *events]:
                    self._hear(event)
                self._late = []
            case "twice":
                for event in [*events, *events]:
                    self._hear(event)
            case "late":
                self._late += events
            case "reconnect":
                self._late = []
                self.enter()

    def _hear(self, event: LiveEvent) -> None:
        match event.name:
            case "call_update":
                self.told.append(["update", *copy.deepcopy(event.args)])
                if self.fold.update(event.args[0]) is Verdict.GAP:
                    self.enter()
            case "active_calls":
                self.told.append(["snapshot", *copy.deepcopy(event.args)])
                self.fold.snapshot(*event.args)


def play(story: list[Any]) -> tuple[Feed, list[Client]]:
    """A feed that lived through a story, and what clients made of it that came at its beginning and in its course."""
    feed = Feed("epoch", keep_calls=1000, keep_seconds=1e9)
    clients = [Client(feed)]
    for number, (call_sid, (kind, data), fate) in enumerate(story, 1):
        events = feed.record(Record(number=number, at=1000.0 + number, call_sid=call_sid, kind=kind, data=data))
        known = copy.deepcopy(feed.calls())
        for client in clients:
            client.hear(events, fate)
            for sid, call in client.fold.calls.items():
                # Never anything that the feed did not say, and all of it once nothing is outstanding.
                assert sid not in known or call["seq"] <= known[sid]["seq"]
                if sid in known and call["seq"] == known[sid]["seq"]:
                    assert call == known[sid]
            if fate == "reconnect":
                assert client.fold.calls == known
        if number % 7 == 0:
            clients.append(Client(feed))
            clients[-1].enter()
            assert clients[-1].fold.calls == known
    return feed, clients


@given(stories)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_client_knows_what_the_feed_knows(story: list[Any]) -> None:
    feed, clients = play(story)
    for client in clients:
        client.enter()
        assert client.fold.calls == feed.calls()


@given(st.lists(st.tuples(sids, happenings), max_size=30))
@settings(max_examples=200, deadline=None)
def test_updates_alone_lead_to_the_state_and_are_numbered_without_a_gap(story: list[Any]) -> None:
    feed, fold = Feed("epoch", keep_calls=1000, keep_seconds=1e9), Fold()
    renamed = False
    ended: set[str] = set()
    for number, (call_sid, (kind, data)) in enumerate(story, 1):
        record = Record(number=number, at=1000.0 + number, call_sid=call_sid, kind=kind, data=data)
        for event in feed.record(record):
            json.dumps(event.args, allow_nan=False)
            if event.name == "active_calls":
                renamed = True
            if event.name == "call_update":
                [update] = event.args
                if update["callSid"] in ended:
                    assert update["type"] in ("recording_update", "machine_detection", "error")
                if update["type"] == "call_ended":
                    ended.add(update["callSid"])
                verdict = fold.update(update)
                assert verdict is Verdict.APPLIED or renamed
        assert feed.record(record) == [], "a record that comes again makes nothing"
        if not renamed:
            assert fold.calls == feed.calls()


def test_the_page_folds_as_we_do() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    told: list[list[Any]] = []
    expected: list[Any] = []

    @given(stories)
    @settings(max_examples=80, deadline=None, database=None, derandomize=True)
    def collect(story: list[Any]) -> None:
        for client in play(story)[1]:
            told.append(["new"])
            twin = Fold()
            expected.append([None, "", {}])
            for method, *arguments in client.told:
                told.append([method, *arguments])
                verdict = getattr(twin, method)(*arguments)
                expected.append([verdict, twin.epoch, copy.deepcopy(twin.calls)])

    collect()
    lines = "".join(json.dumps(line) + "\n" for line in told)
    command = [node, str(SCRIPT), str(FOLD_JS)]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=300, check=True)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(expected) > 100
    for line, result, wanted in zip(told, results, expected, strict=True):
        assert result == json.loads(json.dumps(wanted)), line
