"""``agentao-trio gateway``: calls that come in by themselves, the console, and whose tokens are good."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from rich.console import Console as RichConsole
from trio.testing import MockClock

from agentao_trio.cli.callers import CALLERS, Callers, Pace, check_caller, parse_pace
from agentao_trio.cli.console import LONGEST_LINE, Console, LineReader
from agentao_trio.cli.durations import rate
from agentao_trio.cli.gateway import far_ends
from agentao_trio.cli.running import UsageError
from agentao_trio.cli.screen import Screen
from agentao_trio.gateway import Gateway
from agentao_trio.messages import InboundRule
from tests.integration.conftest import Run
from tests.support.accounts import private_pem, public_pem, write_account
from tests.support.programs import said
from tests.support.simulated import simulated

# -- how often --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "interval"),
    [("10/minute", 6.0), ("2/second", 0.5), ("1/hour", 3600.0), ("30/m", 2.0)],
)
def test_a_pace_is_so_many_calls_in_a_unit(text: str, interval: float) -> None:
    assert parse_pace(text).interval == interval
    assert str(parse_pace(text)) == text


def test_a_rate_is_spelt_alike_everywhere() -> None:
    assert rate("--rate", "30/minute") == rate("--rate", "30/m") == 0.5
    with pytest.raises(UsageError, match="--rate: '30' is no rate; expected one like 2/s or 30/minute"):
        rate("--rate", "30")


@pytest.mark.parametrize(
    "text", ["", "10", "/minute", "0/minute", "-1/minute", "ten/minute", "1/week", "1/minute ", "1e9/hour", "٣/minute"]
)
def test_what_is_no_pace_is_told_what_is(text: str) -> None:
    with pytest.raises(UsageError, match="expected one like 10/minute, 2/second or 1/h"):
        parse_pace(text)


def test_there_is_a_fastest_pace() -> None:
    assert parse_pace("100/second").interval == 0.01
    with pytest.raises(UsageError, match="at most 100/second"):
        parse_pace("101/second")


def test_everybody_who_calls_by_default_exists() -> None:
    assert [check_caller(name) for name in CALLERS] == list(CALLERS)


# -- calls by themselves ----------------------------------------------------------------------------------------------


class Desk:
    """A gateway with callers and a console whose answers are kept, in virtual time."""

    def __init__(self, gateway: Gateway, pace: Pace | None = None, width: int = 80) -> None:
        self.gateway = gateway
        self.screen = RichConsole(record=True, width=width, file=io.StringIO(), markup=False)
        self.callers = Callers(gateway, trunk="main", far_ends=("echo", "tone"), pace=pace)
        self.console = Console(gateway, self.callers, Screen(self.screen, live=False), far_ends)

    def told(self, line: str) -> str:
        assert self.console.obey(line)
        return self.screen.export_text()

    @property
    def open_calls(self) -> list[tuple[str, str]]:
        return [(call.trunk_id, call.far_end.name) for call in self.gateway.model.calls.values()]


async def test_calls_come_in_at_the_pace_from_one_far_end_after_the_other(autojump_clock: MockClock) -> None:
    async with simulated(trunks=["main"]) as (session, gateway), trio.open_nursery() as nursery:
        incoming = session.incoming()
        desk = Desk(gateway, parse_pace("30/minute"))
        nursery.start_soon(desk.callers.run)
        for _ in range(3):
            call = await anext(incoming)
            await call.answer()
        assert trio.current_time() == pytest.approx(4.0, abs=0.2)
        assert desk.open_calls == [("main", "echo"), ("main", "tone"), ("main", "echo")]
        assert "30/minute, from echo, tone in turn" in desk.told("inbound")
        desk.console.obey("inbound off")
        await trio.sleep(10)
        assert len(desk.open_calls) == 3
        assert "1/hour" in desk.told("inbound 1/hour")
        await trio.sleep(1)
        assert len(desk.open_calls) == 4
        nursery.cancel_scope.cancel()


# -- the console ------------------------------------------------------------------------------------------------------


async def test_somebody_can_be_had_to_call(autojump_clock: MockClock) -> None:
    async with simulated(trunks=["main", "sales"]) as (session, gateway):
        desk = Desk(gateway)
        assert desk.told("calls") == "no calls\n"
        for line in ("call", "call sales", "call from +15550100007", "call sales from sip:loss@here;rate=20"):
            assert "calls trunk" in desk.told(line)
        assert desk.open_calls == [("main", "echo"), ("sales", "tone"), ("main", "keypad"), ("sales", "loss")]
        callers = {info.call_from for info in await session.get_incoming_calls("main")}
        assert "+15550100007" in callers
        await session.set_inbound_routing("main", InboundRule.REJECT)
        assert "which rejects calls" in desk.told("call")


@pytest.mark.parametrize("width", [80, 120])
async def test_calls_are_listed_and_hung_up_by_the_beginning_of_their_name(
    width: int, autojump_clock: MockClock
) -> None:
    async with simulated(trunks=["main"]) as (session, gateway):
        desk = Desk(gateway, width=width)
        ours = await session.originate("+15550100001", trunk_id="main", call_sid="spring-\x1b[2J-1")
        await session.originate("+15550100006", trunk_id="main", call_sid="spring-2")
        await trio.sleep(1)
        desk.console.obey("call from tone")
        listed = desk.told("calls")
        assert r"spring-\x1b[2J-1" in listed
        assert max(map(len, listed.splitlines())) <= width
        rows = [line.split() for line in listed.splitlines() if " main " in line]
        assert [row[1:5] for row in rows] == [
            ["out", "main", "echo", "talking"],
            ["out", "main", "hold", "on"],
            ["in", "main", "tone", "waiting"],
        ]
        assert "the beginning of 2 calls" in desk.told("hangup spring-")
        assert "has hung up" in desk.told("hangup spring-\x1b")
        assert (await ours.wait_ended()).q850_cause == 16
        assert "there is no open call" in desk.told("hangup spring-\x1b")


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("dance", "'dance' is no command; help tells which there are"),
        ("CALL", "'CALL' is no command"),
        ("\x1b[2J\u202e", r"'\x1b[2J\u202e' is no command"),
        ("x" * (LONGEST_LINE + 1), "longer than 1000 characters"),
        ("call from", "from whom?"),
        ("call main from nobody", "'nobody' is no far end"),
        ("call main to tone", "expected: call [TRUNK] [from FAR_END]"),
        ("hangup", "expected: hangup CALL"),
        ("hangup \udcff\ud800", "there is no open call"),
        ("inbound 5", "expected one like 10/minute"),
        ("inbound 5/minute please", "expected: inbound N/minute or inbound off"),
        ("calls now", "calls stands alone; 'now' is too much"),
        ("quit now", "'quit' is no command"),
    ],
    ids=lambda text: text[:12].encode("unicode_escape").decode(),
)
async def test_what_makes_no_sense_is_answered_in_one_line(line: str, answer: str, autojump_clock: MockClock) -> None:
    async with simulated() as (_, gateway):
        desk = Desk(gateway)
        told = desk.told(line)
        assert told.startswith("error: ")
        assert answer in told
        assert told.count("\n") == 1
        assert not gateway.model.calls


async def test_help_fits_the_terminal_and_names_every_command(autojump_clock: MockClock) -> None:
    async with simulated() as (_, gateway):
        desk = Desk(gateway)
        told = desk.told("help")
        assert max(map(len, told.splitlines())) <= 80
        assert {line.split()[0] for line in told.splitlines()} == {*desk.console._commands, "quit"}
        assert "+15550100001" in desk.told("numbers")
        assert desk.told("   ") == ""
        assert not desk.console.obey("quit")


# -- where commands come from -----------------------------------------------------------------------------------------


async def lines(source: int) -> list[str]:
    reader, found = LineReader(source), []
    while (line := await reader.line()) is not None:
        found.append(line)
    return found


async def test_lines_come_whole_whatever_the_pieces_and_the_last_needs_no_end() -> None:
    source, sink = os.pipe()
    async with AsyncExitStack() as stack:
        stack.callback(os.close, source)
        nursery = await stack.enter_async_context(trio.open_nursery())

        async def write() -> None:
            for piece in (b"ca", b"ll\nca", b"lls\n\n", b"\xff\n" + b"x" * 3000, b"x" * 3000, b"\nquit"):
                os.write(sink, piece)
                await trio.sleep(0.002)
            os.close(sink)

        nursery.start_soon(write)
        found = await lines(source)
    assert found[:4] == ["call", "calls", "", "�"]
    assert LONGEST_LINE < len(found[4]) < LONGEST_LINE + 5000
    assert found[5:] == ["quit"]


async def test_a_file_will_do_too(tmp_path: Path) -> None:
    (tmp_path / "commands").write_text("call\nquit\n")
    with (tmp_path / "commands").open() as file:
        assert await lines(file.fileno()) == ["call", "quit"]


async def test_waiting_for_a_line_can_be_cancelled_and_loses_nothing() -> None:
    source, sink = os.pipe()
    reader = LineReader(source)
    os.write(sink, b"cal")
    with trio.move_on_after(0.01) as patience:
        await reader.line()
    assert patience.cancelled_caught
    os.write(sink, b"ls\n")
    assert await reader.line() == "calls"
    assert os.get_blocking(source), "whoever shares it would be surprised"
    os.close(source)
    os.close(sink)


COMMAND = [sys.executable, "-u", "-m", "agentao_trio", "gateway", "--port", "0"]


def test_a_pipe_is_obeyed_and_its_end_is_not_the_gateways(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "--inbound", "1/hour", "--inbound-trunk", "sales", "--inbound-from", "tone"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("nonsense\ncall from echo\ninbound 2/min")
        process.stdin.close()
        lines = said(process.stdout, "2/min")
        process.send_signal(signal.SIGTERM)
        process.stdin = None
        out, err = process.communicate(timeout=120)
    lines += out.splitlines()
    assert process.returncode == 0
    assert err == "stopping: hanging up and closing\n"
    assert any("inbound calls on trunk sales, 1/hour, from tone in turn" in line for line in lines)
    assert any("from tone: CHANNEL_CREATE" in line for line in lines)
    assert any("'nonsense' is no command" in line for line in lines)
    assert any(line.startswith("echo calls trunk sales: ") for line in lines)


#: Makes standard input the terminal that Ctrl-C is typed at, as a shell does.
AT_A_TERMINAL = [
    *(sys.executable, "-c"),
    "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])",
]


@pytest.mark.parametrize(
    ("before", "typed"),
    [(AT_A_TERMINAL, b"\x04"), (AT_A_TERMINAL, b"\x03"), (["setsid"], b"quit\r")],
    ids=["ctrl-d", "ctrl-c", "quit, at a terminal of somebody else's"],
)
def test_a_terminal_ends_it_at_once(before: list[str], typed: bytes, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen([*before, *COMMAND], cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while b"help tells which there are" not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, typed)
        try:
            while data := os.read(ours, 4096):
                shown += data
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    assert b"Traceback" not in shown
    assert b"error" not in shown


# -- tokens -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(run: Run) -> Run:
    """Run a command in a directory with an account, its public key, and an account that nobody knows."""
    write_account(Path("account.json"))
    write_account(Path("stranger.json"), "initech")
    Path("acme.pem").write_text(public_pem("acme"))
    Path("private.pem").write_text(private_pem("acme"))
    Path("numbers.csv").write_text("to\n+15550100017\n")
    secrets = private_pem("acme").splitlines()[1:-1]

    def run_and_tell_no_secret(*arguments: str) -> tuple[int, str, str]:
        status, out, err = run(*arguments)
        assert not [line for line in secrets if line[:20] in out + err]
        return status, out, err

    return run_and_tell_no_secret


def test_a_token_goes_round_by_hand(run: Run) -> None:
    write_account(Path("partner.json"), "globex")
    with subprocess.Popen(
        [*COMMAND, "--require-token", "--trust", "acme/key-1=acme.pem", "--trust", "partner.json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        endpoint = next(word.rstrip(";") for word in process.stdout.readline().split() if word.startswith("quic://"))
        assert process.stdout.readline().endswith(" --credentials ACCOUNT.json --presenter first_stream\n")

        def call(*arguments: str) -> tuple[int, str, str]:
            return run("call", "+15550100017", "--gateway", endpoint, "--ca", "ca.pem", *arguments)

        status, _, err = call()
        assert status == 1
        assert "ERR_UNAUTHORIZED (7): this gateway requires a token" in err
        assert call("--credentials", "account.json")[0] == 1, "its name alone proves nothing"
        assert call("--credentials", "account.json", "--presenter", "first_stream")[0] == 3, "busy"
        assert call("--credentials", "partner.json", "--presenter", "tenant_field")[0] == 3
        status, _, err = call("--credentials", "stranger.json", "--presenter", "first_stream")
        assert (status, err.count("\n")) == (1, 1)
        assert "the gateway refused the token" in err
        campaign = ("campaign", "numbers.csv", "--gateway", endpoint, "--ca", "ca.pem", "--attempts", "1")
        assert run(*campaign, "--credentials", "account.json", "--presenter", "tenant_field")[0] == 0
        process.communicate("quit\n", timeout=120)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("gateway --inbound 10", "--inbound: '10' is no pace"),
        ("gateway --inbound-from echo,nobody", "--inbound-from: 'nobody' is no far end"),
        ("gateway --require-token", "--require-token needs --trust"),
        ("gateway --trust none.json", "--trust 'none.json': 'none.json': No such file"),
        ("gateway --trust acme=none.pem", "--trust 'acme=none.pem': No such file"),
        ("gateway --trust acme=account.json", "public_key"),
        ("gateway --trust acme=private.pem", "belongs to the client alone"),
        ("gateway --trust =acme.pem", "tenant_id is not a name"),
        ("gateway --trust acme/=acme.pem", "private_key_id is not a name"),
        ("gateway --trust acme.pem", "the service account is not JSON"),
        ("call +15 --gateway quic://h:1 --presenter first_stream", "--presenter first_stream needs --credentials"),
        ("call +15 --gateway quic://h:1 --presenter token", '"none", "first_stream", "tenant_field"'),
        ("call +15 --gateway quic://h:1 --credentials none.json", "--credentials: 'none.json': No such file"),
        ("campaign numbers.csv --gateway quic://h:1 --credentials private.pem", "the service account is not JSON"),
    ],
)
def test_a_mistake_is_named_in_one_line_with_status_2(arguments: str, hint: str, run: Run) -> None:
    status, out, err = run(*arguments.split())
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert hint in err


def test_a_key_in_place_of_its_files_name_is_not_shown(run: Run) -> None:
    for given in (f"acme={private_pem('acme')}", f" {private_pem('acme')}", private_pem("acme").replace("\n", "")[5:]):
        status, _, err = run("gateway", "--trust", given)
        assert status == 2
        assert err.startswith("error: --trust: ")
    status, _, err = run("call", "+15", "--gateway", "quic://h:1", "--credentials", f" {private_pem('acme')}")
    assert (status, err.startswith("error: --credentials: what was given as a path")) == (2, True)
