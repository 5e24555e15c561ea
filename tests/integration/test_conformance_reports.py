"""What a conformance run leaves behind: the table, the files for machines and for people, and the exit status."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import attrs
import pytest

from agentao_trio import messages
from agentao_trio.cli import app
from agentao_trio.conformance.profile import ProfileError, load_profile
from agentao_trio.conformance.report import as_html, as_junit, as_table, in_words, told
from agentao_trio.conformance.requirements import REQUIREMENTS, Finding, Judgement
from agentao_trio.conformance.runner import Attempt, Result, RunReport, Verdict
from agentao_trio.conformance.targets import SimulatedTarget
from agentao_trio.conformance.trace import Observation, Trace, What
from agentao_trio.messages import EventType, MethodId


@attrs.frozen
class Ran:
    status: int
    out: str
    directory: Path


def conformance(directory: Path, line: str, capsys: pytest.CaptureFixture[str]) -> Ran:
    """The command, in this process."""
    try:
        status = app(["conformance", *line.format(here=directory).split()])
    except SystemExit as end:
        status = end.code
    assert isinstance(status, int)
    out, err = capsys.readouterr()
    return Ran(status, out + err, directory)


# -- a run that finds something -------------------------------------------------------------------------------------


@pytest.fixture
def failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ran:
    """One check fails, and one passes."""
    options = "--only EVT-01,FRM-01 --fault two_hangups --seed 7 --out {here}/out --json {here}/results.json"
    return conformance(tmp_path, f"simulated {options}", capsys)


def test_a_failure_is_told_with_all_that_it_takes_to_see_it_again(failed: Ran) -> None:
    assert failed.status == 1
    told = failed.out.split("EVT-01 FAIL: ")[1]
    assert "  expected  " in told
    assert "  seen      " in told
    assert "of 3 runs" in told or "of 2 runs" in told
    assert "2 checks against simulated: 1 pass, 1 fail." in told


def test_the_line_that_a_failure_ends_with_shows_it_again(failed: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    """With the fault that the simulated gateway had."""
    line = re.search(r"again +agentao-trio conformance (.*?--seed 7)", failed.out, flags=re.DOTALL)
    assert line is not None
    words = line[1].replace("\\\n", "")
    assert words.split() == ["simulated", "--fault", "two_hangups", "--only", "EVT-01", "--seed", "7"]
    assert "1 checks against simulated: 1 fail." in conformance(failed.directory, words, capsys).out


def test_machines_read_the_same_in_json_and_in_junit(failed: Ran) -> None:
    results = json.loads((failed.directory / "results.json").read_text())
    assert results == json.loads((failed.directory / "out/report.json").read_text())
    assert {each["id"]: each["verdict"] for each in results["results"]} == {"EVT-01": "fail", "FRM-01": "pass"}
    suites = ElementTree.parse(failed.directory / "out/junit.xml").getroot()
    assert {(each.get("name"), each.get("tests"), each.get("failures")) for each in suites} == {
        ("FRM", "1", "0"),
        ("EVT", "1", "1"),
    }
    [failure] = suites.iter("failure")
    assert failure.text is not None
    assert failure.text.startswith("EVT-01 FAIL")


def test_the_page_marks_what_was_found_in_the_timeline(failed: Ran) -> None:
    page = (failed.directory / "out/report.html").read_text()
    assert '<a href="#EVT-01">EVT-01</a>' in page
    assert '<section id="EVT-01">' in page
    assert '<section id="FRM-01">' not in page
    assert page.count('<tr class="section">') == 2
    assert '<tr class=broken><td class="n">' in page
    assert '<div class="found">expected ' in page


def test_the_trace_of_a_failure_can_be_read_again_and_judged_again(failed: Ran) -> None:
    lines = (failed.directory / "out/EVT-01.trace.jsonl").read_text().splitlines()
    trace = Trace(Observation.from_json(json.loads(line)) for line in lines)
    assert REQUIREMENTS["EVT-01"].of(trace).findings
    assert not (failed.directory / "out/FRM-01.trace.jsonl").exists()


def test_a_failure_is_run_again_from_its_file(failed: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    again = "simulated --fault two_hangups --replay {here}/out/EVT-01.json"
    assert "1 checks against simulated: 1 fail." in conformance(failed.directory, again, capsys).out
    good = conformance(failed.directory, "simulated --replay {here}/out/EVT-01.json", capsys)
    assert (good.status, "1 checks against simulated: 1 pass." in good.out) == (0, True)


def test_which_datagrams_get_lost_comes_of_the_seed_that_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    targets: list[SimulatedTarget] = []

    def target(**given: Any) -> SimulatedTarget:
        targets.append(SimulatedTarget(**given))
        return targets[-1]

    monkeypatch.setattr("agentao_trio.cli.judging.SimulatedTarget", target)
    conformance(tmp_path, "simulated --only FRM-01 --loss 0.01 --json {here}/results.json", capsys)
    assert targets[0].seed == json.loads((tmp_path / "results.json").read_text())["seed"]


def test_a_waived_failure_costs_nothing_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "waivers.toml").write_text('EVT-01 = "known since March"\n')
    options = "--only EVT-01,FRM-01 --fault two_hangups --seed 7 --waive {here}/waivers.toml"
    files = "--junit {here}/junit.xml --html {here}/report.html"
    ran = conformance(tmp_path, f"simulated {options} {files}", capsys)
    assert (ran.status, "waived    known since March" in ran.out) == (0, True)
    [suite] = (each for each in ElementTree.parse(tmp_path / "junit.xml").getroot() if each.get("name") == "EVT")
    assert (suite.get("failures"), len(list(suite.iter("skipped")))) == ("0", 1)
    assert "(waived: known since March)" in (tmp_path / "report.html").read_text()


def test_the_checks_are_listed_and_nothing_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = conformance(tmp_path, "simulated --list --slow --only AUT", capsys)
    assert ran.status == 0
    assert "AUT-06" in ran.out
    assert "checks against" not in ran.out


# -- what cannot be done --------------------------------------------------------------------------------------------

#: What was asked → the exit status, and a part of what is said.
REFUSED = {
    "simulated --fault no_such": (2, "--fault: there is no fault no_such; there are "),
    "quic://127.0.0.1:1 --fault two_hangups": (2, "--fault and --loss are for the target 'simulated'"),
    "quic://127.0.0.1:1 --loss 0.1": (2, "--fault and --loss are for the target 'simulated'"),
    "quic://gateway.example:1": (2, "gateway.example is not a private address: say --i-own-this-target"),
    "quic://8.8.8.8:1": (2, "8.8.8.8 is not a private address"),
    "simulated --waive {here}/other.json": (2, "--waive: "),
    "simulated --waive {here}/nobody.toml": (2, "NOT-01 = 'why' is no waiver"),
    "simulated --waive {here}/wordless.toml": (2, "EVT-01 = ' ' is no waiver"),
    "simulated --replay {here}/nobody.toml": (2, "--replay: "),
    "simulated --replay {here}/other.json": (2, "is no replay file: it names no check and seed"),
    "--profile {here}/other.json": (2, "other.json cannot be read"),
    "simulated --budget x": (2, "--budget: 'x' is no length of time"),
    "simulated --budget 0s": (2, "--budget: 0s is no time at all"),
    "simulated --rate x": (2, "--rate: 'x' is no rate"),
    "simulated --only ,,": (2, "--only: ',,' names no check and no section"),
    "simulated --only FRM-01 --waive {here}/waiver.toml --json {here}/waiver.toml": (2, "is what is read"),
    # Nobody is there: that is no verdict.
    "quic://localhost:1 --only FRM-01 --keylog {here}/keys": (3, "error: "),
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_done_is_said_before_anything_is_run(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nobody.toml").write_text('NOT-01 = "why"\n')
    (tmp_path / "waiver.toml").write_text('FRM-01 = "known"\n')
    (tmp_path / "wordless.toml").write_text('EVT-01 = " "\n')
    (tmp_path / "other.json").write_text('{"check": "NOT-01", "seed": 1}')
    status, words = REFUSED[line]
    ran = conformance(tmp_path, line, capsys)
    assert ran.status == status
    assert words in " ".join(ran.out.split())


#: A profile → what is said of it.
PROFILES = {
    "target = 1": "target has to be a table: [target]",
    "nothing = 1": "the profile knows no 'nothing'; expected target, destinations, limits",
    "[target]\nadress = 'quic://a:1'": "[target] knows no 'adress'",
    "[destinations]\nfriend = '+15550100001'": "[destinations] knows no 'friend'",
    "": "no gateway is named",
    "[target]\naddress = 'http://a:1'": "http://a:1",
    "[target]\naddress = 'quic://a:1'\ncapabilities = 'token'": "capabilities in [target] is a list of words",
    "[target]\naddress = 'quic://a:1'\ncapabilities = ['magic']": "capabilities knows no 'magic'",
    "[target]\naddress = 'quic://a:1'\nrpc_length = 'both'": "rpc_length is 'both'; expected exclusive or inclusive",
    "[target]\naddress = 'quic://a:1'\npresenter = 'first_stream'": "there are no credentials to present",
    "[target]\naddress = 'quic://a:1'\ncredentials = 'missing.json'": "credentials in [target]: ",
    "[target]\naddress = 'quic://a:1'\ncredentials = 1": "credentials in [target]: ",
}


@pytest.mark.parametrize("text", PROFILES)
def test_a_profile_that_cannot_be_used_names_the_key(text: str, tmp_path: Path) -> None:
    path = tmp_path / "target.toml"
    path.write_text(text)
    with pytest.raises(ProfileError) as refused:
        load_profile(path)
    assert PROFILES[text] in str(refused.value)


# -- verdicts -------------------------------------------------------------------------------------------------------


def result(check: str, verdict: Verdict, **rest: object) -> Result:
    return Result(requirement=REQUIREMENTS[check], verdict=verdict, **rest)  # type: ignore[arg-type]


def report(*results: Result, stopped: str = "") -> RunReport:
    return RunReport(target="t", seed=1, results=results, calls=0, seconds=1.0, stopped=stopped)


def test_the_exit_status_says_the_worst_that_was_seen() -> None:
    good, bad = result("EVT-01", Verdict.PASS), result("EVT-01", Verdict.FAIL)
    error, unclear = result("FRM-01", Verdict.ERROR), result("EVT-01", Verdict.INCONCLUSIVE)
    assert report(good, bad, error, stopped="enough").exit_status == 1
    assert report(good, error, stopped="enough").exit_status == 70
    assert report(good, stopped="enough").exit_status == 5
    assert report(good, unclear).exit_status == 0
    assert report(unclear).exit_status == 4


def test_an_error_of_the_kit_is_an_error_in_junit_too_and_its_reason_is_told() -> None:
    wrong = result("FRM-01", Verdict.ERROR, reason="Traceback: \x00 <boom>", example={"payload": [1]})
    suites = ElementTree.fromstring(as_junit(report(wrong)))
    [error] = suites.iter("error")
    assert "<boom>" in str(error.get("message"))
    assert "  reason    Traceback: " in told(wrong)
    assert '  shortest  {"payload": [1]}' in told(wrong)
    assert "\n  again     agentao-trio conformance TARGET --only FRM-01 --seed 0\n" in told(wrong)
    assert '<section id="FRM-01">' in as_html(report(wrong))
    assert as_table(report(wrong, stopped="enough")) is not None


def test_of_a_long_trace_the_lines_around_what_was_found_are_shown() -> None:
    judgement = Judgement()
    judgement.findings.append(Finding(expected="quiet", seen="noise", index=400, call_sid="CA1"))
    trace = Trace(Observation(at=float(n), what=What.MARK, link="A", note=f"mark {n}") for n in range(1000))
    attempt = Attempt(trace=trace, judgement=judgement)
    page = as_html(report(result("EVT-01", Verdict.FAIL, attempts=(attempt,))))
    assert "(call CA1)" in page
    shown = {n for n in range(1000) if f"<td>mark {n}</td>" in page or f"<td>mark {n}<div" in page}
    assert shown == {*range(100), *range(361, 440), *range(990, 1000)}
    assert '<td colspan="5">261 lines</td>' in page
    assert '<td colspan="5">550 lines</td>' in page


OVER = EventType.CHANNEL_HANGUP_COMPLETE
HANGUP = messages.encode(
    messages.CallEvent(call_sid="CA1", event_type=OVER, status="completed", timestamp_ms=5, q850_cause=16)
)
AUDIO = messages.encode(messages.AudioFrame(call_sid="CA1", sequence_number=3, payload=b"ab", end_of_stream=True))

#: An observation → what people read.
WORDS = [
    (
        Observation(at=0.0, what=What.FRAME, method=MethodId.StreamEvents, data=HANGUP),
        "CHANNEL_HANGUP_COMPLETE completed of CA1 at 5, cause 16",
    ),
    (
        Observation(at=0.0, what=What.FRAME, method=MethodId.AudioFrame, data=AUDIO),
        "audio 3 of CA1, 2 bytes, end of stream",
    ),
    (Observation(at=0.0, what=What.FRAME, method=12345, data=b"abc"), "method 12345, 3 bytes"),
    (Observation(at=0.0, what=What.REQUEST, method=12345, data=b"abc"), "method 12345, 3 bytes"),
    (Observation(at=0.0, what=What.REQUEST, method=MethodId.StreamEvents), "StreamEvents"),
    (Observation(at=0.0, what=What.CLOSED, code=7, note="bye\x07"), "bye\\x07, code 7"),
    (Observation(at=0.0, what=What.MARK, note="calls", facts={"role": "busy"}), "calls, role busy"),
]


@pytest.mark.parametrize(("line", "words"), WORDS)
def test_a_line_of_a_trace_reads_as_words(line: Observation, words: str) -> None:
    assert in_words(line) == words


def test_a_frame_that_cannot_be_decoded_says_so() -> None:
    broken = Observation(at=0.0, what=What.FRAME, method=MethodId.StreamEvents, data=HANGUP[:3])
    assert in_words(broken).startswith("3 bytes that cannot be decoded: ")
