"""``agentao-trio doctor``: why a connection to a gateway fails, or that it does not, step by step.

Theory of operation
-------------------
Every step is one line: ``ok``, ``failed`` or ``unknown``, what was seen, and below it what would be right. A step that
another one keeps from being looked at is ``unknown``. Nothing is asked of the gateway that changes anything: it is
subscribed to with a client id made up for the purpose, and asked for its queues (GetActiveBuckets), once in each length
convention. A token is only shown to a gateway whose certificate has been found good.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum

import attrs
import trio
from cryptography import x509

from agentao_trio import messages
from agentao_trio.cli.access import NO_CREDENTIALS, RpcLength, Trust
from agentao_trio.cli.running import FAILURE
from agentao_trio.cli.screen import Screen
from agentao_trio.close_codes import CloseCode
from agentao_trio.credentials import ServiceAccount, TokenSource
from agentao_trio.errors import (
    AuthenticationError,
    CommandRejected,
    ConnectError,
    ConnectionLost,
    RemoteProtocolError,
    StreamReset,
)
from agentao_trio.messages import ErrorCode, MethodId
from agentao_trio.presenters import first_stream
from agentao_trio.rpc import exchange
from agentao_trio.transport import ClientTLS, Connection, TransportSettings, open_connection, parse_endpoint
from agentao_trio.wire import encode_request

__all__ = ["STEPS", "DoctorOptions", "Examination", "Finding", "Verdict", "examine"]

#: Seconds for name lookup and handshake together, for the reply to one command, and for that to a subscription.
CONNECT_SECONDS, REPLY_SECONDS, SUBSCRIBE_SECONDS = 5.0, 2.0, 1.0

#: What is looked at, in the order in which it is told.
STEPS = (
    "credentials",
    "name",
    "port",
    "protocol",
    "certificate dates",
    "certificate name",
    "certificate chain",
    "length convention",
    "token",
    "subscription",
)

#: Reason of a :class:`ConnectError` → the step that failed, and what would be right.
ADVICE = {
    "port": ("port", "start the gateway there, or give the UDP port that it listens on"),
    "path": ("port", "this machine's network and its routes have to reach that address"),
    "mtu": ("port", "raise the MTU of the link or tunnel to 1280 bytes at least"),
    "silence": (
        "port",
        "the gateway has to run at that address, firewalls have to let UDP through in both directions, and the path "
        "has to carry datagrams of 1200 bytes (MTU 1280)",
    ),
    "slow": ("port", "the path loses or delays too much; look for what is overloaded on it"),
    "alpn": ("protocol", f"the port has to be a gateway's, which speaks {TransportSettings().alpn!r} over QUIC"),
    "handshake": ("protocol", "the gateway's log may tell why"),
    "files": ("certificate chain", "--ca takes a PEM file with at least one certificate"),
    "name": ("name", "check its spelling, and this machine's name service"),
}


class Verdict(Enum):
    """What came of one step."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


@attrs.frozen(kw_only=True)
class Finding:
    """One step: what was ``seen``, and what would be ``right`` where that is something else."""

    step: str
    verdict: Verdict
    seen: str
    right: str = ""


@attrs.frozen(kw_only=True)
class DoctorOptions:
    """What was asked for, as for the commands that place calls."""

    endpoint: str
    trust: Trust = NO_CREDENTIALS
    rpc_length: RpcLength = "exclusive"


class Outcome(Enum):
    """How a gateway took one harmless command."""

    ANSWERED = "answered"
    UNAUTHORIZED = "refused for want of a good token"
    QUIET = "the stream ended without a reply"
    UNREADABLE = "answered with what is no reply"
    RESET = "the stream was reset"
    SILENT = f"no answer within {REPLY_SECONDS:g} s"
    CLOSED = "the connection was closed"

    @property
    def is_understood(self) -> bool:
        return self in (Outcome.ANSWERED, Outcome.UNAUTHORIZED)


class Examination:
    """Looks at one gateway. ``tell`` gets each finding as soon as there is one, in the order of :data:`STEPS`."""

    def __init__(self, options: DoctorOptions, tell: Callable[[Finding], None] = lambda finding: None) -> None:
        self.findings: dict[str, Finding] = {}
        self._options = options
        self._tell = tell
        self._host, self._port = parse_endpoint(options.endpoint)
        self._tls = ClientTLS(ca=options.trust.ca, server_name=options.trust.server_name)
        self._tokens: TokenSource | None = None

    async def run(self) -> None:
        """Look at everything. Bounded by a few seconds; cancelled, the findings so far remain."""
        self._look_at_credentials()
        if await self._resolve():
            try:
                async with self._connection() as connection:
                    self._connected(connection)
                    await self._talk(connection)
            except ConnectError as error:
                await self._not_connected(error)
        failed = [step for step, finding in self.findings.items() if finding.verdict is Verdict.FAILED]
        for step in STEPS:
            if step not in self.findings:
                self._find(step, Verdict.UNKNOWN, f"not looked at: {failed[-1]} comes first")

    def _find(self, step: str, verdict: Verdict, seen: str, right: str = "") -> None:
        self.findings[step] = finding = Finding(step=step, verdict=verdict, seen=seen, right=right)
        self._tell(finding)

    # -- before there is a connection -----------------------------------------------------------------------------

    def _look_at_credentials(self) -> None:
        if self._options.trust.credentials is None:
            self._find("credentials", Verdict.OK, "none given; so no token is shown")
            return
        try:
            account = ServiceAccount.load(self._options.trust.credentials)
            tokens = TokenSource(account)
            tokens.token(time.time())
        except AuthenticationError as error:
            seen, _, right = str(error).partition("; ")
            self._find(
                "credentials", Verdict.FAILED, seen, right or "--credentials takes a service account's JSON file"
            )
        else:
            self._tokens = tokens
            seen = f"tenant {account.tenant_id}, key {account.private_key_id}; a token can be signed with it"
            self._find("credentials", Verdict.OK, seen)

    async def _resolve(self) -> bool:
        problem = ""
        with trio.move_on_after(CONNECT_SECONDS) as patience:
            try:
                found = await trio.socket.getaddrinfo(self._host, self._port, type=trio.socket.SOCK_DGRAM)
            except (OSError, ValueError) as error:  # ValueError: what no name may contain
                problem = str(getattr(error, "strerror", None) or error)
        if patience.cancelled_caught:
            problem = f"the name service is silent for {CONNECT_SECONDS:g} s"
        if problem:
            self._find("name", Verdict.FAILED, f"{self._host} has no address: {problem}", ADVICE["name"][1])
            return False
        addresses = dict.fromkeys(str(address[0]) for *_, address in found)
        self._find("name", Verdict.OK, f"{self._host} is {', '.join(addresses)}")
        return True

    def _connection(self, tls: ClientTLS | None = None) -> contextlib.AbstractAsyncContextManager[Connection]:
        return open_connection(self._host, self._port, tls=tls or self._tls, timeout=CONNECT_SECONDS)

    async def _not_connected(self, error: ConnectError) -> None:
        seen = str(error).partition("; ")[0]
        if error.reason in ("dates", "host_name", "chain") and error.certificate is not None:
            self._found_port(f"UDP port {self._port} answers")
            await self._bad_certificate(error, error.certificate)
            return
        step, right = ADVICE[error.reason]
        if step == "protocol":
            self._find("port", Verdict.OK, f"UDP port {self._port} answers")
        self._find(step, Verdict.FAILED, seen, right)

    def _found_port(self, seen: str) -> None:
        self._find("port", Verdict.OK, seen)
        self._find("protocol", Verdict.OK, f"QUIC with {TransportSettings().alpn!r} (ALPN)")

    # -- the certificate ------------------------------------------------------------------------------------------

    async def _bad_certificate(self, error: ConnectError, encoded: bytes) -> None:
        dates, names, issuer = _read_certificate(encoded)
        if error.reason == "dates":
            now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
            right = f"have it renewed; or set this machine's clock, which says that it is {now}"
            self._find("certificate dates", Verdict.FAILED, dates, right)
            return
        self._find("certificate dates", Verdict.OK, dates)
        name = self._options.trust.server_name or self._host
        is_trusted = error.reason != "chain"
        if error.reason == "host_name":
            carried = ", ".join(names) or "no name at all"
            right = f"connect by a name that it carries, or give one as --server-name: {carried}"
            self._find("certificate name", Verdict.FAILED, f"it is for {carried}, and not for {name}", right)
            if not names:
                return
            try:
                # Whoever made the certificate is only asked for once the name is right.
                async with self._connection(attrs.evolve(self._tls, server_name=names[0].replace("*", "any"))):
                    pass
            except ConnectError as other:
                if other.reason != "chain":
                    return
                is_trusted = False
        else:
            self._find("certificate name", Verdict.OK, f"it is for {name}")
        if is_trusted:
            self._find("certificate chain", Verdict.OK, f"issued by {issuer}, which is trusted here")
        else:
            ca = self._options.trust.ca
            trusted = f"the authorities in {ca}" if ca else "this machine's authorities"
            self._find(
                "certificate chain",
                Verdict.FAILED,
                f"issued by {issuer}, which {trusted} do not vouch for",
                "give the gateway's certificate authority as --ca FILE; where it is in that file already, the gateway "
                "has to send the certificates in between too",
            )

    def _connected(self, connection: Connection) -> None:
        milliseconds = connection.statistics().rtt * 1000
        address = connection.peer_address
        self._found_port(f"{address[0]} answers on UDP port {address[1]}; round trip {milliseconds:.1f} ms")
        assert connection.peer_certificate is not None  # it was verified
        dates, names, issuer = _read_certificate(connection.peer_certificate)
        self._find("certificate dates", Verdict.OK, dates)
        self._find("certificate name", Verdict.OK, f"it is for {', '.join(names)}")
        self._find("certificate chain", Verdict.OK, f"issued by {issuer}, which is trusted here")

    # -- on a connection that is good -----------------------------------------------------------------------------

    async def _talk(self, connection: Connection) -> None:
        length = self._options.rpc_length
        other: RpcLength = "inclusive" if length == "exclusive" else "exclusive"
        refusal = await self._present(connection)
        outcome = await _probe(connection, length)
        # On a connection of its own, as some gateway may close one that is spoken to in the wrong way.
        with contextlib.suppress(ConnectError):
            async with self._connection() as second:
                await self._present(second)
                self._tell_length(length, outcome, other, await _probe(second, other))
        if "length convention" not in self.findings:
            self._find("length convention", Verdict.UNKNOWN, "the gateway took no second connection")
        self._tell_token(refusal, outcome)
        if refusal or connection.is_over:
            seen = refusal or "the connection was closed before it could be asked for"
            self._find("subscription", Verdict.UNKNOWN, f"not looked at: {seen}")
        else:
            await self._subscribe(connection)

    async def _present(self, connection: Connection) -> str:
        """Show the token where it is to be shown on the first stream. Returns why it was refused."""
        if self._tokens is not None and self._options.trust.presenter == "first_stream":
            try:
                await first_stream(connection, self._tokens.token(time.time()))
            except (AuthenticationError, ConnectionLost) as error:
                return str(error).partition("; ")[0]
        return ""

    def _tell_length(self, ours: RpcLength, outcome: Outcome, other: RpcLength, others: Outcome) -> None:
        seen = f"{ours}: {outcome.value}; {other}: {others.value}"
        if outcome.is_understood:
            self._find("length convention", Verdict.OK, seen)
        elif others.is_understood:
            self._find("length convention", Verdict.FAILED, seen, f"give --rpc-length {other}")
        elif outcome is Outcome.QUIET:
            self._find("length convention", Verdict.UNKNOWN, seen, "a gateway that replies tells them apart")
        else:
            right = "one of the two has to be answered; is this a gateway, and does it know GetActiveBuckets?"
            self._find("length convention", Verdict.FAILED, seen, right)

    def _tell_token(self, refusal: str, outcome: Outcome) -> None:
        presenter = self._options.trust.presenter
        if refusal:
            right = "the gateway has to know this account's public key, and the two clocks have to agree"
            self._find("token", Verdict.FAILED, refusal, right)
        elif self._options.trust.credentials is not None and self._tokens is None:
            self._find("token", Verdict.UNKNOWN, "there is none to show: see the credentials")
        elif presenter == "tenant_field":
            seen = "goes into the requests that name a tenant; only placing a call can tell whether it is good"
            self._find("token", Verdict.UNKNOWN, seen)
        elif outcome is Outcome.UNAUTHORIZED:
            if presenter == "first_stream":
                right = "the gateway may want the token elsewhere (--presenter tenant_field), or from another account"
            elif self._tokens is not None:
                right = "the token has to be shown: give --presenter first_stream or tenant_field"
            else:
                right = "give --credentials FILE, and --presenter first_stream or tenant_field"
            self._find("token", Verdict.FAILED, "commands are refused for want of a good one", right)
        elif not outcome.is_understood:
            self._find("token", Verdict.UNKNOWN, "no command was answered that would tell")
        elif presenter == "first_stream":
            self._find("token", Verdict.OK, "shown on the first stream; commands are carried out")
        else:
            self._find("token", Verdict.OK, "none shown; commands are carried out without")

    async def _subscribe(self, connection: Connection) -> None:
        request = messages.EventStreamRequest(client_id=f"doctor-{uuid.uuid4()}")
        began = trio.current_time()
        try:
            stream = await connection.open_bidi()
            stream.write(
                encode_request(MethodId.StreamEvents, messages.encode(request), rpc_length=self._options.rpc_length)
            )
            stream.finish()
            with trio.move_on_after(SUBSCRIBE_SECONDS):
                await stream.receive_some()
                milliseconds = (trio.current_time() - began) * 1000
                self._find("subscription", Verdict.OK, f"acknowledged after {milliseconds:.0f} ms")
                return
        except StreamReset as reset:
            seen = f"the gateway reset the stream (code {reset.code})"
            right = "see the token" if reset.code == CloseCode.UNAUTHORIZED else "see the length convention"
            self._find("subscription", Verdict.FAILED, seen, right)
        except ConnectionLost as lost:
            self._find("subscription", Verdict.FAILED, str(lost), "the gateway's log may tell why")
        else:
            seen = f"not acknowledged within {SUBSCRIBE_SECONDS:g} s, which many gateways never do"
            self._find("subscription", Verdict.UNKNOWN, seen)


async def _probe(connection: Connection, length: RpcLength) -> Outcome:
    """Ask for the queues there are, which changes nothing."""
    method = MethodId.GetActiveBuckets
    try:
        with trio.move_on_after(REPLY_SECONDS):
            reply = await exchange(connection, method, messages.METHODS[method].request(), rpc_length=length)
            return Outcome.QUIET if reply is None else Outcome.ANSWERED
    except CommandRejected as rejection:
        reset = rejection.__cause__
        if isinstance(reset, StreamReset):
            return Outcome.UNAUTHORIZED if reset.code == CloseCode.UNAUTHORIZED else Outcome.RESET
        return Outcome.UNAUTHORIZED if rejection.code == ErrorCode.ERR_UNAUTHORIZED else Outcome.ANSWERED
    except RemoteProtocolError:
        return Outcome.UNREADABLE
    except (ConnectionLost, trio.ClosedResourceError):
        return Outcome.CLOSED
    return Outcome.SILENT


def _read_certificate(encoded: bytes) -> tuple[str, list[str], str]:
    """Between which dates a certificate is valid, for which names, and who issued it, in words."""
    certificate = x509.load_der_x509_certificate(encoded)
    since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    names: list[str] = []
    issuer = "somebody unreadable"
    # Extensions and names are only looked into when they are asked for, and are the far side's.
    with contextlib.suppress(x509.ExtensionNotFound, ValueError):
        carried = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names += carried.get_values_for_type(x509.DNSName)
        names += [str(address) for address in carried.get_values_for_type(x509.IPAddress)]
    with contextlib.suppress(ValueError):
        issuer = certificate.issuer.rfc4514_string() or "nobody"
    return f"valid from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC", names, issuer


# -- what is shown --------------------------------------------------------------------------------------------------

STYLES = {Verdict.OK: "green", Verdict.FAILED: "bold red", Verdict.UNKNOWN: "yellow"}
_STEP_WIDTH = max(map(len, STEPS)) + 2


def show(screen: Screen, finding: Finding) -> None:
    """One finding as one line, and what would be right as another."""
    style = STYLES[finding.verdict]
    screen.say(f"{finding.verdict.value:<9}{finding.step:<{_STEP_WIDTH}}{finding.seen}", style=style)
    if finding.right:
        screen.say(f"{'':<{9 + _STEP_WIDTH}}right: {finding.right}")


async def examine(options: DoctorOptions, screen: Screen) -> int:
    """Look at a gateway and show what was found. Returns the exit status."""
    examination = Examination(options, lambda finding: show(screen, finding))
    await examination.run()
    verdicts = [finding.verdict for finding in examination.findings.values()]
    if failed := [step for step in examination.findings if examination.findings[step].verdict is Verdict.FAILED]:
        screen.say(f"failed: {', '.join(failed)}")
        return FAILURE
    untold = verdicts.count(Verdict.UNKNOWN)
    screen.say("all is well" if not untold else f"nothing is wrong as far as can be seen; {untold} could not be told")
    return 0
