"""What dashboards are told of a call, event by event."""

from __future__ import annotations

from typing import Any

import pytest

from agentao_trio.live.feed import Feed, LiveEvent
from agentao_trio.records import Record, RecordKind


class Story:
    """A feed, and records for it one after the other."""

    def __init__(self, **limits: Any) -> None:
        self.feed = Feed("epoch", **limits)
        self._number = 0

    def tell(self, kind: RecordKind, call_sid: str = "c1", *, at: float | None = None, **data: Any) -> list[LiveEvent]:
        self._number += 1
        at = self._number if at is None else at
        return self.feed.record(Record(number=self._number, at=at, call_sid=call_sid, kind=kind, data=data))

    def updates(self, kind: RecordKind, **data: Any) -> list[dict[str, Any]]:
        return [event.args[0] for event in self.tell(kind, **data) if event.name == "call_update"]

    def event(self, event_type: str, verdict: str = "in_order", **event: Any) -> list[dict[str, Any]]:
        return self.updates(RecordKind.EVENT, verdict=verdict, event={"event_type": event_type, **event})

    def begin(self, call_sid: str = "c1", *, at: float | None = None) -> list[LiveEvent]:
        parties = {"direction": "outbound", "caller": "100", "callee": "200"}
        return self.tell(RecordKind.CALL, call_sid, at=at, phase="began", **parties)


def test_the_course_of_a_call() -> None:
    story = Story()
    [new, mirror] = story.begin()
    assert (new.name, new.rooms) == ("call_update", ("call-updates",))
    assert (mirror.name, mirror.rooms) == ("call_data", ("call-c1",))
    assert new.args[0]["eventId"] == "epoch:c1:1"
    assert new.args[0]["timestamp"] == "1970-01-01T00:00:01.000Z"
    [ringing] = story.event("CHANNEL_CREATE", status="RINGING")
    [answered] = story.event("CHANNEL_ANSWER", codec="PCMU", answer_timestamp_ms=5_250)
    assert (ringing["type"], ringing["data"]) == ("status_update", {"status": "ringing"})
    assert answered["data"] == {"status": "in-progress", "answerTime": "1970-01-01T00:00:05.250Z", "codec": "PCMU"}
    assert [story.event(kind)[0]["data"]["status"] for kind in ("CHANNEL_HOLD", "CHANNEL_RESUME")] == [
        "on-hold",
        "in-progress",
    ]
    [ai] = story.updates(RecordKind.CONVERSATION, phase="connected", model="m", voice="v")
    assert ai["data"] == {"status": "connected_to_ai", "model": "m", "voice": "v"}
    assert story.feed.calls()["c1"]["status"] == "in-progress", "which is not what the model's status says"


@pytest.mark.parametrize(("heard", "told", "shown"), [(9, 4.25, 4.25), (9, 0.0, None), (0, 4.41, None)])
def test_a_gateway_that_heard_nothing_has_no_estimate(heard: int, told: float, shown: float | None) -> None:
    story = Story()
    story.begin()
    story.event("CHANNEL_ANSWER")
    quality, *_ = story.event("CHANNEL_HANGUP_COMPLETE", packets_sent=9, packets_received=heard, estimated_mos=told)
    assert quality["data"]["metrics"].get("mos") == shown


def test_the_end_is_told_once_and_in_order() -> None:
    story = Story()
    story.begin()
    story.event("CHANNEL_ANSWER")
    story.updates(RecordKind.CONVERSATION, phase="connected", model="m")
    hangup: dict[str, Any] = {"q850_cause": 16, "packets_sent": 9, "estimated_mos": 4.0, "recording_url": "https://r/1"}
    ending = story.event("CHANNEL_HANGUP_COMPLETE", **hangup)
    assert [update["type"] for update in ending] == [
        *("conversation_ended", "quality_update", "recording_update", "call_ended")
    ]
    assert ending[1]["data"]["metrics"]["source"] == "gateway"
    assert (ending[3]["data"]["status"], ending[3]["data"]["q850Cause"]) == ("completed", 16)
    # What the session says of the same end, and what the gateway says again.
    assert story.tell(RecordKind.QUALITY, mos=4.1, final=True) == []
    assert story.tell(RecordKind.CALL, phase="over", how="hangup") == []
    assert story.tell(RecordKind.CONVERSATION, phase="ended", reason="bye") == []
    assert story.event("CHANNEL_HANGUP_COMPLETE", "duplicate", **hangup) == []
    # What may be late.
    assert story.tell(RecordKind.TRANSCRIPT, phase="final", item_id="i", role="user", text="bye", order=1)
    [recording] = story.updates(RecordKind.RECORDING, recording_sid="r", status="completed", location="r.wav")
    assert recording["seq"] == ending[3]["seq"] + 1
    assert story.feed.calls()["c1"]["status"] == "completed"


@pytest.mark.parametrize(
    ("cause", "status"), [(16, "canceled"), (17, "busy"), (18, "no-answer"), (19, "no-answer"), (41, "failed")]
)
def test_why_nobody_answered(cause: int, status: str) -> None:
    story = Story()
    story.begin()
    assert story.event("CHANNEL_HANGUP_COMPLETE", q850_cause=cause)[-1]["data"]["status"] == status


def test_a_lost_call_ends_without_the_gateways_word() -> None:
    story = Story()
    story.begin()
    [update] = story.updates(RecordKind.CALL, phase="over", how="lost", error="the connection was lost")
    assert (update["type"], update["data"]["status"]) == ("call_ended", "failed")
    assert story.feed.calls()["c1"]["lastError"]["message"] == "the connection was lost"


def test_a_call_that_another_worker_has_is_gone() -> None:
    story = Story()
    story.begin()
    story.event("CHANNEL_CREATE", status="RINGING")
    [snapshot] = story.tell(RecordKind.CALL, phase="over", how="released")
    assert (snapshot.name, snapshot.args[0]) == ("active_calls", [])
    assert snapshot.rooms == ("call-updates", "call-c1")
    # What the gateway tells everybody of it makes nothing.
    for kind in ("CHANNEL_ANSWER", "CHANNEL_HANGUP_COMPLETE"):
        assert story.event(kind, q850_cause=16) == []
    assert story.feed.calls() == {}
    # Should it come back: the number says that something is missing to those who still know it as it was.
    assert [update["seq"] for event in story.begin() if event.name == "call_update" for update in event.args] == [4]


def test_a_call_that_is_over_is_not_left_to_another_worker() -> None:
    story = Story()
    story.begin()
    story.event("CHANNEL_HANGUP_COMPLETE", q850_cause=17)
    assert story.tell(RecordKind.CALL, phase="over", how="released") == []
    assert story.feed.calls()["c1"]["status"] == "busy"


def test_a_late_joiner_is_told_the_quality_of_the_last_minute() -> None:
    story = Story()
    story.begin()
    for second in range(100):
        story.tell(RecordKind.QUALITY, at=1000 + second, mos=4.0, jitter_ms=second, final=False)
    story.tell(RecordKind.QUALITY, "c2", at=1100, mos=3.0, packet_loss_pct=1.5, final=False)
    history = story.feed.quality()
    assert history.name == "quality_history"
    assert len(history.args[0]["c1"]) == 60
    assert history.args[0]["c1"][-1] == (1_099_000, 4.0, 99, None)
    assert history.args[0]["c2"] == [(1_100_000, 3.0, None, 1.5)]
    full = story.feed.call("c1")
    assert full is not None
    assert full.args[0]["quality"] == history.args[0]["c1"]


def test_the_quality_told_to_a_late_joiner_is_bounded_and_its_tenants_own() -> None:
    story = Story()
    for number in range(150):
        story.tell(RecordKind.QUALITY, f"c{number}", mos=4.0, final=False)
    assert list(story.feed.quality().args[0]) == [f"c{number}" for number in range(50, 150)]
    assert story.feed.quality("acme").args == ({},)


def test_deltas_are_superseded_by_the_final_text() -> None:
    story = Story()
    story.begin()
    item: dict[str, Any] = {"item_id": "i", "order": 0, "role": "assistant"}
    [delta] = story.tell(RecordKind.TRANSCRIPT, phase="delta", delta="He", offset=0, text="He", **item)
    assert (delta.name, delta.args[0]["type"], delta.args[0]["isPartial"]) == ("transcript_update", "message", True)
    final, mirror = story.tell(RecordKind.TRANSCRIPT, phase="final", text="Hello", **item)
    assert (final.name, mirror.name) == ("transcript_message", "call_transcript_message")
    assert story.tell(RecordKind.TRANSCRIPT, phase="delta", delta="llo", offset=2, text="Hello", **item) == []
    assert story.tell(RecordKind.TRANSCRIPT, phase="final", text="Hello", **item) == []
    late = story.feed.transcript("c1")
    assert late is not None
    assert [message["message"] for message in late.args[0]["transcript"]["messages"]] == ["Hello"]


def test_a_tenants_calls_are_its_own() -> None:
    story = Story()
    story.tell(RecordKind.EVENT, "x", verdict="in_order", event={"event_type": "CHANNEL_CREATE", "tenant_id": "a:b"})
    story.begin()
    [update, _] = story.tell(RecordKind.TOOL, "x", name="f", tool_call_id="t", phase="started")
    assert update.rooms == ("call-updates", "a%3Ab:call-updates")
    assert [call["callSid"] for call in story.feed.snapshot(0, "a:b").args[0]] == ["x"]
    assert story.feed.call("c1", "a:b") is None


def test_a_call_goes_on_under_another_sid() -> None:
    story = Story()
    story.begin("mine")
    [event] = story.tell(RecordKind.CALL, "theirs", phase="renamed", call_sid_before="mine")
    assert (event.name, [call["callSid"] for call in event.args[0]]) == ("active_calls", ["theirs"])
    for sid in ("theirs", "mine"):
        [update, _] = story.tell(RecordKind.TOOL, sid, name="f", tool_call_id="t", phase="started")
        assert update.args[0]["callSid"] == "theirs"
    assert update.args[0]["seq"] == 3


def test_what_is_kept_is_bounded() -> None:
    story = Story(keep_seconds=60, keep_calls=2, max_calls=3)
    for number in range(5):
        story.begin(f"over{number}", at=10)
        story.tell(RecordKind.CALL, f"over{number}", at=10, phase="over", how="left")
    assert sorted(story.feed.calls()) == ["over3", "over4"]
    for number in range(5):
        story.begin(f"open{number}", at=100)
    assert sorted(story.feed.calls()) == ["open2", "open3", "open4"]
    assert story.feed.statistics().open_calls_forgotten == 2
    for number in range(600):
        item = {"item_id": str(number), "order": number, "role": "user"}
        story.tell(RecordKind.TRANSCRIPT, "open4", at=100, phase="final", text="x" * 1000, **item)
        story.tell(RecordKind.RECORDING, "open4", at=100, recording_sid=str(number), status="completed")
    late, full = story.feed.transcript("open4"), story.feed.call("open4")
    assert late is not None
    assert full is not None
    assert len(late.args[0]["transcript"]["messages"]) == 200
    assert len(full.args[0]["events"]) == 100
    assert len(full.args[0]["data"]["recordings"]) == 20
    assert full.args[0]["data"]["recordingCount"] == 600


@pytest.mark.parametrize("epoch", ["", "a:b"])
def test_an_epoch_can_be_told_from_what_follows_it(epoch: str) -> None:
    with pytest.raises(ValueError, match="a word without a colon"):
        Feed(epoch)


def test_an_error_that_is_no_calls_is_told_to_those_who_watch_all() -> None:
    [error] = Story().tell(RecordKind.ERROR, "", source="session", type="ConnectionLost", message="gone")
    assert (error.name, error.rooms) == ("error", ("call-updates",))
    assert Story().tell(RecordKind.SESSION, "", state="up") == []


def test_events_of_the_new_sid_may_be_quicker_than_the_word_of_it() -> None:
    story = Story()
    story.begin("mine")
    story.tell(RecordKind.EVENT, "theirs", verdict="in_order", event={"event_type": "CHANNEL_CREATE"})
    told = story.tell(RecordKind.CALL, "theirs", phase="renamed", call_sid_before="mine")
    assert [event.args[0]["data"] for event in told if event.name == "call_update"] == [
        {"status": "initiated", "from": "100", "to": "200", "direction": "outbound"}
    ]
    assert [(call["callSid"], call["direction"]) for call in told[-1].args[0]] == [("theirs", "outbound")]


def test_old_names_and_calls_left_to_others_are_forgotten_in_the_end() -> None:
    story = Story()
    for number in range(10_001):
        story.tell(RecordKind.CALL, f"left{number}", phase="over", how="released")
    # The first one is forgotten, so that what is told of it is news again; the last one is another worker's still.
    assert story.tell(RecordKind.TOOL, "left0", name="f", tool_call_id="t", phase="started") != []
    assert story.tell(RecordKind.TOOL, "left10000", name="f", tool_call_id="t", phase="started") == []
