"""The command line, ``agentao-trio``. Commands of many options have their own modules beside this one.

What a user got wrong is told in one line that names it and says what would be right, with exit status 2; what went
wrong elsewhere, likewise, with 1. Neither shows a traceback. Ctrl-C and SIGTERM end in order: calls are hung up, files
finished, connections closed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter, validators
from cyclopts.types import ExistingFile
from rich.text import Text

from agentao_trio import __version__
from agentao_trio.cli.access import NO_CREDENTIALS, NOTHING_GIVEN, GatewayAccess, RpcLength, Trust, checked_endpoint
from agentao_trio.cli.agent import agent_app
from agentao_trio.cli.callers import CALLERS, check_caller, parse_pace
from agentao_trio.cli.campaign import CampaignOptions, CampaignRun, check_report, load_numbers, retry_policy
from agentao_trio.cli.conformance import conformance_app
from agentao_trio.cli.course import AS_USUAL, Course
from agentao_trio.cli.demo import Demo
from agentao_trio.cli.doctor import DoctorOptions, examine
from agentao_trio.cli.gateway import GatewayOptions, far_ends, fault_table, serve
from agentao_trio.cli.history import history_app
from agentao_trio.cli.identity import service_account, trusted_keys
from agentao_trio.cli.live import live_app
from agentao_trio.cli.one_call import CallOptions, OneCall
from agentao_trio.cli.running import (
    FAILURE,
    INTERRUPTED,
    UsageError,
    about,
    check_apart,
    errors,
    log_to_stderr,
    output,
    run,
    until_signalled,
)
from agentao_trio.cli.screen import Screen, printable
from agentao_trio.cli.streams import tolerate
from agentao_trio.dialplan import check_destination

__all__ = ["app", "main"]

app: App = App(
    name="agentao-trio",
    version=f"agentao-trio {__version__}",
    help="Place phone calls through a QUIC voice gateway, or through the one that is built in.",
    help_format="markdown",
    help_epilogue="""\
**Examples**

- `agentao-trio demo`
- `agentao-trio gateway`
- `agentao-trio call +15550100001 --gateway quic://127.0.0.1:9090 --ca ca.pem`
- `agentao-trio --install-completion` for bash, zsh, fish or PowerShell

**Exit status:** 0 success, 1 failure, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM""",
    error_formatter=lambda error: Text(f"error: {printable(str(error))}"),
    console=output,
    error_console=errors,
    result_action="return_value",
)
app.register_install_completion_command()
app.command(agent_app)
app.command(history_app)
app.command(live_app)
app.command(conformance_app)


@app.command(
    name="demo",
    help_epilogue="""\
**Examples**

- `agentao-trio demo`
- `agentao-trio demo --calls 50 --seconds 20`
- `agentao-trio demo --no-table | tee demo.log`
- `agentao-trio demo --live`

**Exit status:** 0 when every call ended with the cause it had to, echoes are bit-exact and clean calls lost no packet;
1 when something is not so, and the last lines say what""",
)
def demo_command(
    *,
    calls: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=500))] = 10,
    seconds: Annotated[float | None, Parameter(validator=validators.Number(gt=0, lte=3600))] = None,
    record: Path = Path("recordings"),
    table: bool = True,
    live: Annotated[bool, Parameter(negative="")] = False,
    port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65_535))] = 8080,
    browser: bool = True,
) -> int:
    """Make ten phone calls at once, offline: the whole thing in one command.

    Starts the embedded gateway on loopback with real UDP and TLS, opens a session with it, and calls far ends that
    echo, play a recording, send a tone, are silent, hold, lose packets, hang up, are busy or do not answer. A recording
    of human speech is played into every call; what comes back is recorded and checked.

    Args:
        calls: How many calls to make; from the eleventh on they are echoes.
        seconds: Say the recording for so long, again from the start when it is over. Otherwise once, which is 5.3 s.
        record: Directory for the recordings: WAV files that every player plays.
        table: Show a live table where the output is a terminal. Otherwise plain lines.
        live: Show the calls in the browser instead, with two conversations, again and again until Ctrl-C.
        port: Where the browser finds them, on this machine; 0 takes a free port.
        browser: Open the browser.
    """

    async def command() -> int:
        screen = Screen(output, live=table)
        if not live:
            return await Demo(calls=calls, seconds=seconds, directory=record, screen=screen).run()
        try:
            import agentao_trio.realtime  # noqa: F401
            from agentao_trio.cli.show import Show
        except ModuleNotFoundError:
            wanted = "the extras 'live' and 'realtime': pip install 'agentao-trio[live,realtime]'"
            raise UsageError(f"demo --live needs {wanted}") from None
        show = Show(port=port, directory=record, calls=calls, browser=browser and screen.live, screen=screen)
        await until_signalled(show.run)
        return 0  # that is how it ends

    return run(command)


@app.command(
    name="gateway",
    help_epilogue="""\
**Examples**

- `agentao-trio gateway`
- `agentao-trio gateway --numbers`
- `agentao-trio gateway --host 0.0.0.0 --name gateway.example --port 0`
- `agentao-trio gateway --inbound 10/minute --inbound-from echo,tone,+15550100105`
- `agentao-trio gateway --require-token --trust account.json --trust acme/key-1=acme-public.pem`

**Exit status:** 0 when ended by Ctrl-C or SIGTERM, which is how it ends; 1 for a failure, such as a port in use""",
)
def gateway_command(
    *,
    host: str = "127.0.0.1",
    name: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65_535))] = 9090,
    ca_file: Path = Path("ca.pem"),
    rpc_reply: Literal["framed", "bare", "none"] = "framed",
    trust: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    require_token: Annotated[bool, Parameter(negative="")] = False,
    inbound: Annotated[str | None, Parameter(show_default=False)] = None,
    inbound_trunk: str = "main",
    inbound_from: str = ",".join(CALLERS),
    fault: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    fuzz: Annotated[int | None, Parameter(show_default=False)] = None,
    numbers: Annotated[bool, Parameter(negative="")] = False,
    faults: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run the embedded gateway for other programs, until Ctrl-C.

    It speaks the protocol of the real ones over QUIC with TLS, and instead of a telephone network it has far ends of
    its own to call. Its certificate authority is made anew at each start and written to a file for clients to trust.
    At a terminal, and from a pipe, it takes commands: help tells which there are.

    Args:
        host: Address to listen on.
        name: Further name that the certificate is for; may be given several times.
        port: UDP port to listen on; 0 takes a free one.
        ca_file: Where to write the certificate authority. An existing file is replaced.
        rpc_reply: How requests are answered: as documented, with a bare envelope, or not at all.
        trust: Whose tokens are good: a service account's file, or a public key in PEM as TENANT=FILE or
            TENANT/KEY_ID=FILE; may be given several times.
        require_token: Refuse the requests of clients that have not shown a good token. Inbound calls are for the tenant
            trusted first.
        inbound: Have somebody call in so often: 10/minute, 2/s, 1/hour.
        inbound_trunk: The trunk they call.
        inbound_from: Who calls, in turn: names, numbers or SIP URIs of far ends, between commas.
        fault: A rule to break, by name, to try clients and judges out with; may be given several times.
        fuzz: Behave in legal but unusual ways, for clients to be tried out with; a number gives one way of it.
        numbers: Print who answers which number, and do nothing else.
        faults: Print the rules that can be broken, and do nothing else.
    """
    if numbers or faults:
        output.print(far_ends() if numbers else fault_table())
        return 0

    async def command() -> int:
        if require_token and not trust:
            raise UsageError("--require-token needs --trust: nobody's token would be good")
        with about("--inbound"):
            pace = None if inbound is None else parse_pace(inbound)
        with about("--inbound-from"):
            callers = tuple(check_caller(each.strip()) for each in inbound_from.split(","))
        options = GatewayOptions(
            host=host,
            port=port,
            names=name,
            ca_file=ca_file,
            rpc_reply=rpc_reply,
            trusted=trusted_keys(trust),
            require_token=require_token,
            inbound=pace,
            trunk=inbound_trunk,
            callers=callers,
            faults=fault,
            fuzz=fuzz,
        )
        await until_signalled(lambda: serve(options, Screen(output, live=False)))
        return 0

    return run(command)


@app.command(
    name="call",
    help_epilogue="""\
**Examples**

- `agentao-trio call +15550100001 --gateway quic://127.0.0.1:9090 --ca ca.pem --play hello.wav --record reply.wav`
- `agentao-trio call sip:alice@example.com --gateway quic://gateway.example:9090 --rpc-length inclusive`

**Exit status:** tells how the call ended

- 0: answered, and cleared normally
- 3: busy
- 4: nobody answered
- 5: failed otherwise before it was answered
- 6: answered, and did not end normally
- 1: no connection, or refused by the gateway""",
)
def call_command(
    to: str,
    /,
    *,
    gateway: str,
    access: GatewayAccess = NOTHING_GIVEN,
    trunk: str = "main",
    caller: Annotated[str, Parameter(name="--from", show_default=False)] = "",
    record: Path | None = None,
    course: Course = AS_USUAL,
) -> int:
    """Place one call through any gateway, and see it to its end.

    Plays a WAV file into the call if there is one, listens a little longer, and hangs up. Without one it listens until
    the far end hangs up or the time is over. The exit status tells how the call ended.

    Args:
        to: Whom to call: a number like +15550100001, or a SIP URI.
        gateway: The gateway, as quic://HOST:PORT.
        trunk: The gateway's line to call from.
        caller: The number to show to the far end.
        record: WAV file to write what the far end says to.
    """

    async def command() -> int:
        check_destination(to)
        check_apart("--record", record, course.play)
        options = CallOptions(
            to=to,
            gateway=access.config(gateway),
            trunk=trunk,
            caller=caller,
            audio=course.audio(),
            record=record,
            course=course,
        )
        call = OneCall(options, Screen(output))
        received = await until_signalled(call.run)
        status = call.report()
        return received or status

    return run(command)


@app.command(
    name="campaign",
    help_epilogue="""\
**Examples**

- `agentao-trio campaign numbers.csv --gateway quic://127.0.0.1:9090 --ca ca.pem --play hello.wav`
- `agentao-trio campaign numbers.csv --gateway quic://127.0.0.1:9090 --calls-per-second 5 --max-concurrent 50
  --attempts 3 --retry 17,18,19 --retry-after 5m,17=30s --report outcomes.csv`

**Exit status:** 0 when every number was reached or given up by the policy; 1 when some were refused, lost or of unknown
outcome, or for no connection; 2 for a mistake in the file of numbers too, and then nobody was called""",
)
def campaign_command(
    numbers: ExistingFile,
    /,
    *,
    gateway: str,
    access: GatewayAccess = NOTHING_GIVEN,
    trunk: str = "main",
    caller: Annotated[str, Parameter(name="--from", show_default=False)] = "",
    calls_per_second: Annotated[float, Parameter(validator=validators.Number(gt=0, lte=1000))] = 1,
    max_concurrent: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=10_000))] = 10,
    attempts: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=100))] = 3,
    retry: str = "17,18,19",
    retry_after: str = "60s",
    duplicates: Literal["refuse", "skip", "call"] = "refuse",
    report: Path | None = None,
    live: bool = True,
    course: Course = AS_USUAL,
) -> int:
    """Call every number of a CSV file, at a pace and so many at a time, and again after busy and no answer.

    The first line of the file names the columns: to, and where wanted call_from and trunk_id; others are kept in a JSON
    report. Whoever answers hears a WAV file, or is listened to until they hang up. At the end there is a table of
    outcomes by Q.850 cause. Ctrl-C hangs up and tells who was not called.

    Args:
        numbers: CSV file in UTF-8 with the numbers to call.
        gateway: The gateway, as quic://HOST:PORT.
        trunk: The gateway's line to call from, for rows that name none.
        caller: The number to show to the far end, for rows that name none.
        calls_per_second: How many calls to place a second, evenly.
        max_concurrent: How many calls may be in progress at a time.
        attempts: How often to call a number altogether.
        retry: After which Q.850 causes to call again: 17 busy, 18 nobody responds, 19 nobody answers.
        retry_after: How long to wait before that: 90s, 5m, 1h; also for one cause, as in 60s,19=10m.
        duplicates: What to do with a number that comes twice: refuse the file, skip it, or call it again.
        report: File to write what became of each number to, .csv or .json.
        live: Show a live picture where the output is a terminal. Otherwise plain lines.
    """

    async def command() -> int:
        options = CampaignOptions(
            rows=load_numbers(numbers, duplicates),
            gateway=access.config(gateway),
            trunk=trunk,
            caller=caller,
            calls_per_second=calls_per_second,
            max_concurrent=max_concurrent,
            retry=retry_policy(retry, attempts, retry_after),
            audio=course.audio(),
            course=course,
        )
        if report is not None:
            check_apart("--report", report, numbers, course.play)
            check_report(report)
        campaign = CampaignRun(options, Screen(output, live=live), report)
        received = await until_signalled(campaign.run)
        status = campaign.report()
        return received or status

    return run(command)


@app.command(
    name="doctor",
    help_epilogue="""\
**Examples**

- `agentao-trio doctor quic://127.0.0.1:9090 --ca ca.pem`
- `agentao-trio doctor quic://gateway.example:9090 --credentials account.json --presenter first_stream`

**Exit status:** 0 when nothing is wrong, 1 when something is""",
)
def doctor_command(
    gateway: str,
    /,
    *,
    trust: Trust = NO_CREDENTIALS,
    rpc_length: RpcLength = "exclusive",
) -> int:
    """Say why a connection to a gateway fails, or that it does not, step by step.

    Looks at the name, the UDP port, the protocol, the certificate, the token, the length convention and the
    subscription: each ok, failed or unknown, with what was seen and what would be right. No call is placed.

    Args:
        gateway: The gateway, as quic://HOST:PORT.
        rpc_length: What the length of a request counts: exclusive is as documented, inclusive as older clients do it.
    """

    async def command() -> int:
        if trust.credentials is None:
            service_account(None, trust.presenter)
        endpoint = checked_endpoint(gateway, "GATEWAY")
        options = DoctorOptions(endpoint=endpoint, trust=trust, rpc_length=rpc_length)
        status = 0

        async def look() -> None:
            nonlocal status
            status = await examine(options, Screen(output, live=False))

        received = await until_signalled(look)
        return received or status

    return run(command)


def main() -> None:
    """The console script. Exits with the command's status, or with 1 where nothing failed but standard output."""
    tolerate()
    log_to_stderr()
    try:
        status = app()
    except KeyboardInterrupt:  # before the command had begun, which ends in order
        status = INTERRUPTED
    sys.exit(status or (FAILURE if output.lost else 0))
