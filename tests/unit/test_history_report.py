"""The report: one well-formed page, with everything that was counted and nothing that runs."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from agentao_trio.analytics import Analysis
from agentao_trio.history_report import report
from agentao_trio.records import Record, RecordKind
from agentao_trio.summaries import CallSummary, summarised

HOUR = 3600.0


def records(*, calls: int = 3, every: float = HOUR) -> list[Record]:
    """Calls that begin ``every`` seconds; the second of three is busy."""
    made: list[Record] = []

    def add(kind: RecordKind, call_sid: str, at: float, **data: object) -> None:
        made.append(Record(number=len(made) + 1, at=at, call_sid=call_sid, kind=kind, data=data))

    for number in range(calls):
        sid, at = f"call-{number}", 1_700_000_000.0 + number * every
        began = {"direction": "inbound", "caller": "<b>Eve</b>", "callee": "+15550100001", "trunk_id": "main"}
        add(RecordKind.CALL, sid, at, phase="began", **began)
        if number % 3 != 1:
            add(RecordKind.EVENT, sid, at + 2, verdict="in_order", event={"event_type": "CHANNEL_ANSWER"})
            add(RecordKind.QUALITY, sid, at + 3, mos=4.2, jitter_ms=1.5, packet_loss_pct=0.1)
            add(RecordKind.TURN, sid, at + 4, first_audio_seconds=0.7, barge_in=True)
            add(RecordKind.TOOL, sid, at + 4, name="look_up", phase="done", seconds=0.25)
            add(RecordKind.ERROR, sid, at + 5, source="realtime", code="rate_limit")
        hangup = {"event_type": "CHANNEL_HANGUP_COMPLETE", "q850_cause": 17 if number % 3 == 1 else 16}
        add(RecordKind.EVENT, sid, at + 12, verdict="in_order", event=hangup)
        add(RecordKind.CALL, sid, at + 12, phase="over", how="hangup")
    return made


def page(made: list[Record]) -> str:
    analysis = Analysis()
    for record in made:
        analysis.feed(record)
    calls: list[CallSummary] = list(summarised(made).values())
    drawn = {"Talked, s": analysis.seconds_talked, "Reply, s": analysis.turn_seconds}
    return report(analysis.figures(), calls, distributions=drawn, title="Calls of <today>")


def parsed(text: str) -> ElementTree.Element:
    """The page as XML: what a browser would forgive is an error here."""
    text = re.sub(r"<(meta [^>]*)>", r"<\1/>", text.removeprefix("<!doctype html>"))
    return ElementTree.fromstring(text)


def rows(text: str) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in row] for row in parsed(text).iter("tr")]


def test_everything_that_was_counted_is_on_the_page() -> None:
    found = rows(page(records()))
    assert ["completed", "2", "66.7 %"] in found
    assert ["17", "User busy", "1"] in found
    assert ["main", "3", "2", "66.7 %"] in found
    assert ["look_up", "2", "0", "0.25", "0.25", "0.25"] in found
    assert ["realtime rate_limit", "2"] in found
    [talked] = [row for row in found if row[0] == "Talked, s"]
    assert talked[1:4] == ["2", "10", "10"]


def test_the_calls_are_listed_with_their_numbers_and_nothing_in_them_is_markup() -> None:
    text = page(records())
    assert "<b>Eve" not in text
    assert "Calls of &lt;today&gt;" in text
    listed = [row for row in rows(text) if row[-1].startswith("call-")]
    assert [row[2] for row in listed] == ["<b>Eve</b>"] * 3
    assert listed[1][4:6] == ["busy", "17 User busy"]


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing() -> None:
    text = page(records())
    assert "<script" not in text
    assert not re.search(r"(?:src|href)=|url\(|@import", text)


def test_an_hour_without_calls_has_its_place_and_many_days_are_told_by_day() -> None:
    hours = page(records(calls=2, every=5 * HOUR))
    assert "Calls by hour" in hours
    assert len(re.findall(r"<rect [^>]*height=", hours.split("</figure>")[0])) - 2 == 2 * 6
    days = page(records(calls=6, every=30 * HOUR))
    assert "Calls by day" in days


def test_a_history_of_nothing_is_a_page_too() -> None:
    assert "Nothing was recorded." in page([])
    assert rows(page([])) == []
