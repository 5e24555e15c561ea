"""The short form of the benchmarks: CPU time of the core without sockets, in a few seconds and with generous margins.

A margin is about half of what the full form finds (``python -m benchmarks``), and what is held against it is the better
quartile of several races: a busy machine spoils some of them, a change that gives up the gain spoils all.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from statistics import median

import attrs
import pytest

from agentao_trio import messages
from agentao_trio.messages import AudioFrame, CallEvent, Message
from benchmarks import codec, naive
from benchmarks.__main__ import as_json, table_of
from benchmarks.contest import STEPS, Contest, failed
from benchmarks.engine import cost_per_frame
from benchmarks.floor import measure_floor
from benchmarks.formats import formats
from benchmarks.lines import Costs, costs_by_function, functions_of
from benchmarks.load_gateway import whole_frames
from benchmarks.pages import fill
from benchmarks.race import Ratio, race, ratio_of
from benchmarks.row import Goal, Row, row_of
from benchmarks.talk import PACKET, Report, quantile, speech

# -- the figures ------------------------------------------------------------------------------------------------------


def test_audio_is_encoded_several_times_faster_than_field_by_field() -> None:
    assert codec.encode_audio(pairs=5).high >= 3.0


def test_audio_is_decoded_faster_than_field_by_field() -> None:
    assert codec.decode_audio(pairs=5).high >= 2.0


def test_events_are_decoded_faster_than_field_by_field() -> None:
    assert codec.decode_event(pairs=5).high >= 1.2


def test_a_backlog_costs_no_more_per_byte_than_datagrams() -> None:
    assert codec.splitting(pairs=5).low <= 1.5


def test_a_frame_costs_about_the_same_however_many_streams_are_open() -> None:
    """The stock engine comes to about five here."""
    few, many = cost_per_frame(50, 1.0), cost_per_frame(400, 0.2)
    assert many.sender / few.sender <= 2.0


# -- what makes the figures mean something ----------------------------------------------------------------------------


@pytest.mark.parametrize("message", [codec.AUDIO, codec.EVENT], ids=["audio", "event"])
def test_the_other_formats_carry_the_same(message: Message) -> None:
    for other in formats(type(message)):
        if other.missing:
            continue
        decoded = other.decode(other.encode(message))
        for attribute in attrs.fields(type(message)):
            assert getattr(decoded, attribute.name) == getattr(message, attribute.name)


def test_the_naive_codec_does_the_same_work() -> None:
    assert naive.decode_event(codec.EVENT_BODY) == naive.Event(**attrs.asdict(codec.EVENT))
    assert naive.split(codec.AUDIO_FRAME * 3 + b"begun") == [(messages.MethodId.AudioFrame, codec.AUDIO_BODY)] * 3
    assert messages.decode(AudioFrame, codec.AUDIO_BODY) == codec.AUDIO
    assert messages.decode(CallEvent, codec.EVENT_BODY) == codec.EVENT


def test_a_ratio_is_the_median_of_its_pairs() -> None:
    ratio = ratio_of([(2.0, 1.0), (9.0, 3.0), (4.0, 1.0)])
    assert (ratio.median, ratio.low, ratio.high) == (3.0, 2.5, 3.5)
    assert (ratio.first, ratio.second, ratio.pairs) == (4.0, 1.0, 3)


def test_a_race_is_run_in_both_orders() -> None:
    order: list[str] = []
    race(lambda: order.append("first"), lambda: order.append("second"), pairs=2)
    assert order == ["first", "second", "first", "second", "second", "first"]


def test_whole_frames_are_sent_back_and_the_rest_is_kept() -> None:
    data = codec.AUDIO_FRAME * 2
    assert [
        whole_frames(data[:cut]) for cut in (0, 3, len(data) // 2 - 1, len(data) // 2, len(data) - 1, len(data))
    ] == [
        *(0, 0, 0),
        *(len(data) // 2, len(data) // 2),
        len(data),
    ]


def test_the_floor_has_no_piece_that_costs_nothing() -> None:
    for rhythm in (0.0, 0.001):
        floor = measure_floor(rhythm)
        assert all(0 < seconds < 1 for seconds in attrs.asdict(floor).values())
        assert floor.per_frame_event < sum(attrs.asdict(floor).values())


def test_a_report_with_anything_left_behind_says_so() -> None:
    times = dict.fromkeys(("lateness_p50", "lateness_p99", "echo_p50", "echo_p99"), 0.001)
    report = Report(calls=1, seconds=1.0, cpu=0.5, sent=60, received=40, shed=0, missing=0, **times)
    assert (report.cpu_per_frame, report.has_backlog) == (0.005, False)
    assert attrs.evolve(report, missing=1).has_backlog
    assert attrs.evolve(report, shed=1).has_backlog
    assert attrs.evolve(report, sent=45).has_backlog  # of 50
    assert attrs.evolve(report, echo_p99=0.151).has_backlog
    assert Report(**json.loads(report.as_json())) == report
    assert quantile([], 0.99) == math.inf


def test_both_clients_say_the_same_noise() -> None:
    chunks, packets = speech(5), speech(1)
    for _ in range(50):  # around the end of the tape and over
        assert next(chunks) == b"".join(next(packets) for _ in range(5))
    assert len(next(packets)) == PACKET


# -- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [
        (Goal(relation="≥", value=5), 5.0, True),
        (Goal(relation="≥", value=5), 4.99, False),
        (Goal(relation="≤", value=1.1), 1.1, True),
        (Goal(relation="≤", value=1.1), 1.11, False),
        (Goal(relation="≤", value=1.1), None, None),
        (None, 1.0, None),
    ],
)
def test_a_row_is_held_against_its_goal(goal: Goal | None, value: float | None, met: bool | None) -> None:
    assert Row(group="codec", name="row", goal=goal, value=value).met is met


def test_rows_become_a_table_and_json() -> None:
    ratio = Ratio(median=6.0, low=5.9, high=6.1, first=6e-6, second=1e-6, pairs=3)
    rows = [
        row_of(ratio, group="codec", name="fast", goal=Goal(relation="≥", value=5)),
        Row(group="codec", name="absent", missing="msgpack is not installed"),
    ]
    assert table_of(rows, {"cores": 2}).row_count == 2
    written = json.loads(json.dumps(as_json(rows, {"cores": 2})))
    assert written["machine"] == {"cores": 2}
    assert [(row["value"], row["goal"], row["met"]) for row in written["rows"]] == [
        (6.0, "≥ 5", True),
        (None, None, None),
    ]


def test_rows_are_put_where_a_page_wants_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Before\n<!-- measured: codec -->\nold\n<!-- end -->\n<!-- measured: wan -->\nkept\n<!-- end -->\n")
    rows = [Row(group="codec", name="a|b", value=6.0, unit="×", goal=Goal(relation="≥", value=5))]
    for _ in range(2):  # the second time it finds what the first has put there
        fill(page, as_json(rows, {"cores": 2}))
    text = page.read_text()
    assert "| a\\|b | 6× |  | ≥ 5 | met |  |" in text
    assert "Measured: cores 2." in text
    assert ("old" in text, "kept" in text, text.startswith("Before\n")) == (False, True, True)


def test_the_command_says_what_it_takes() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks", "--help"], capture_output=True, text=True, check=True)
    for option in ("--quick", "--json", "--plots", "--only"):
        assert option in done.stdout


# -- the contest ------------------------------------------------------------------------------------------------------


class Tryout(Contest):
    """Clients that carry so many calls, and no more."""

    def __init__(self, **most: int) -> None:
        self.most = most

    def talk(self, client: str, calls: int, seconds: float) -> Report:
        none = failed(calls)
        return none if calls > self.most[client] else attrs.evolve(none, missing=0, lateness_p99=0.001, echo_p99=0.002)


@pytest.mark.parametrize(
    ("stolen", "which", "disturbed"),
    [
        pytest.param([0.0], 0, 0, id="nothing was taken"),
        pytest.param([9.0, 0.0], 1, 0, id="the second time it was quiet"),
        pytest.param([9.0, 8.0, 3.0, 7.0], 2, 1, id="it never was: the least disturbed counts, and is counted"),
    ],
)
def test_a_run_during_which_the_host_took_the_cores_is_done_again(
    stolen: list[float], which: int, disturbed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, taken = iter(range(100)), 0.0

    class Runs(Contest):
        def __init__(self) -> None:
            self.runs, self.disturbed, self.tried = [], 0, 0

        def _talk(self, client: str, calls: int, seconds: float) -> tuple[Report, float]:
            nonlocal taken
            taken += stolen[self.tried]
            self.tried += 1
            return attrs.evolve(failed(calls), sent=self.tried), 0.0

    monkeypatch.setattr("benchmarks.contest._stolen", lambda: taken)
    monkeypatch.setattr("benchmarks.contest.monotonic", lambda: next(clock))
    contest = Runs()
    assert contest.talk("ours", 1, 1.0).sent == which + 1
    assert (contest.tried, len(contest.runs), contest.disturbed) == (len(stolen), 1, disturbed)


def test_the_most_calls_are_found_for_clients_that_differ() -> None:
    found = Tryout(good=400, bad=100, none=39).most_calls(("good", "bad", "none"), STEPS, 4.0, 12)
    assert len(found) == 12
    for most, tried in zip((400, 100), zip(*found, strict=True), strict=False):
        within = max(step for step in STEPS if step <= most)
        beyond = min(step for step in STEPS if step > most)
        assert within <= median(tried) <= beyond
    assert {turn[2] for turn in found} == {0}


def test_who_carries_all_there_are_is_not_asked_for_more() -> None:
    assert Tryout(best=9999).most_calls(("best",), STEPS, 4.0, 9)[-1] == (STEPS[-1],)


# -- the simulated processor ------------------------------------------------------------------------------------------

PERF_MAP = """\
7f00 b py::Uplink._on_slot:/home/me/agentao_trio/media.py
7f10 b py::unrolled_run:/usr/lib/python3.13/site-packages/trio/_core/_run.py
7f20 b py::unpack:<string>
"""
#: The costs of a function itself, of a call from it, of another line, and of functions that are named by number.
CALLGRIND = """\
# callgrind format
version: 1
desc: I1 cache: 32768 B, 64 B, 8-way associative
positions: line
events: Ir Dr Dw DLmr DLmw
summary: 1 2 3

fn=(1) _PyEval_EvalFrameDefault'0x0000000000007f00'py_trampoline_evaluator
10 100 20 10 3 1
cfn=(2) _PyObject_Malloc'_PyEval_EvalFrameDefault'0x0000000000007f00
calls=1 30
+2 7000 700 700 70 70
* 5

fn=(2)
30 40 4 4 0 2

fn=(3) _PyEval_EvalFrameDefault'0x0000000000007f1b'0x0000000000007f00
-3 9 0 0 1
fn=(4) free'dealloc'other
1 6
"""


def test_what_c_functions_cost_counts_for_the_python_function_they_work_for() -> None:
    functions = functions_of(PERF_MAP.splitlines(keepends=True))
    assert [name for _, name in functions] == [
        "/home/me/agentao_trio/media.py: Uplink._on_slot",
        "trio/_core/_run.py: unrolled_run",
        "<string>: unpack",
    ]
    assert costs_by_function(CALLGRIND.splitlines(keepends=True), functions) == {
        "/home/me/agentao_trio/media.py: Uplink._on_slot": Costs(instructions=145, read=3, written=3),
        "trio/_core/_run.py: unrolled_run": Costs(instructions=9, read=1, written=0),
        "of no function": Costs(instructions=6, read=0, written=0),
    }
