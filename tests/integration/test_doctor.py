"""What the doctor says of a connection, against gateways on loopback with real UDP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import pytest
import trio

from agentao_trio import messages
from agentao_trio.cli import app
from agentao_trio.cli.access import RpcLength, Trust
from agentao_trio.cli.doctor import STEPS, DoctorOptions, Examination, Finding
from agentao_trio.close_codes import CloseCode
from agentao_trio.errors import RemoteProtocolError
from agentao_trio.gateway import GatewaySettings, open_gateway
from agentao_trio.messages import MethodId
from agentao_trio.transport import BidiStream, Connection, ServerTLS, TransportSettings, open_listener
from agentao_trio.wire import decode_request, encode_reply
from tests.integration.conftest import GatewayProcess
from tests.support.accounts import verifier, write_account
from tests.support.ports import silent_port
from tests.support.quic import authority, long_ago, server_tls

REQUIRED = GatewaySettings(verifier=verifier(), authentication="required")


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no finding. How long nothing is waited for is another matter, and has its test."""
    for name in ("CONNECT_SECONDS", "REPLY_SECONDS", "SUBSCRIBE_SECONDS"):
        monkeypatch.setattr(f"agentao_trio.cli.doctor.{name}", 60.0)


@attrs.frozen
class Told:
    findings: dict[str, Finding]

    def __getitem__(self, step: str) -> str:
        return self.findings[step].verdict.value

    def words(self, step: str) -> str:
        return f"{self.findings[step].seen}; {self.findings[step].right}"

    @property
    def failed(self) -> set[str]:
        return {step for step in self.findings if self[step] == "failed"}


async def examined(endpoint: str, *, rpc_length: RpcLength = "exclusive", **trust: object) -> Told:
    told: list[Finding] = []
    options = DoctorOptions(endpoint=endpoint, trust=Trust(**trust), rpc_length=rpc_length)  # type: ignore[arg-type]
    examination = Examination(options, told.append)
    with trio.fail_after(120):
        await examination.run()
    assert {finding.step for finding in told} == set(STEPS)
    assert len(told) == len(STEPS)
    assert all(finding.right for finding in told if finding.verdict.value == "failed")
    return Told(examination.findings)


async def listening(
    tls: ServerTLS,
    serve: Callable[[Connection], Awaitable[None]] | None = None,
    settings: TransportSettings | None = None,
    *,
    task_status: trio.TaskStatus[str],
) -> None:
    """A listener that is not a gateway; ``serve`` is what it does on a connection, by default nothing."""
    async with open_listener(("127.0.0.1", 0), tls=tls, settings=settings) as listener, trio.open_nursery() as nursery:
        task_status.started(f"quic://127.0.0.1:{listener.address[1]}")
        async for connection in listener:
            if serve is not None:
                nursery.start_soon(serve, connection)


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    path = tmp_path / "ours.pem"
    path.write_bytes(authority("ours").cert_pem.bytes())
    return path


def ca_of(gateway_ca: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(gateway_ca)
    return path


async def test_all_is_well(tmp_path: Path) -> None:
    async with open_gateway() as gateway:
        told = await examined(gateway.endpoint, ca=ca_of(gateway.ca_pem, tmp_path))
        assert {told[step] for step in STEPS} == {"ok"}
        assert told.words("length convention").startswith("exclusive: answered; inclusive: answered")
        assert gateway.statistics().model.calls_open == 0


async def test_a_name_that_is_none() -> None:
    told = await examined("quic://gateway.invalid:9090")
    assert told.failed == {"name"}
    assert told.words("port").startswith("not looked at: name comes first")


async def test_nobody_listens() -> None:
    with silent_port() as port:
        told = await examined(f"quic://127.0.0.1:{port}")
    assert told.failed == {"port"}
    assert f"nobody listens on UDP port {port}" in told.words("port")
    assert told["certificate dates"] == "unknown"


async def test_an_authority_that_is_not_trusted(ca: Path) -> None:
    async with open_gateway() as gateway:
        told = await examined(gateway.endpoint, ca=ca)
    assert told.failed == {"certificate chain"}
    assert told["certificate name"] == told["certificate dates"] == told["protocol"] == "ok"
    assert "--ca" in told.words("certificate chain")
    assert told["token"] == "unknown"


async def test_another_host_s_certificate(tmp_path: Path) -> None:
    async with open_gateway() as gateway:
        trusted = ca_of(gateway.ca_pem, tmp_path)
        told = await examined(gateway.endpoint, ca=trusted, server_name="gateway.example")
        both = await examined(gateway.endpoint, server_name="gateway.example")
    assert told.failed == {"certificate name"}
    assert "not for gateway.example" in told.words("certificate name")
    assert "127.0.0.1" in told.words("certificate name")
    assert told["certificate chain"] == "ok"
    assert both.failed == {"certificate name", "certificate chain"}


async def test_a_certificate_that_has_expired(ca: Path, nursery: trio.Nursery) -> None:
    not_before, not_after = long_ago()
    endpoint = await nursery.start(listening, server_tls("127.0.0.1", not_before=not_before, not_after=not_after))
    told = await examined(endpoint, ca=ca)
    assert told.failed == {"certificate dates"}
    assert "to 2002-01-01 00:00 UTC" in told.words("certificate dates")


async def test_another_protocol(ca: Path, nursery: trio.Nursery) -> None:
    endpoint = await nursery.start(listening, server_tls(), None, TransportSettings(alpn="doq"))
    told = await examined(endpoint, ca=ca)
    assert told.failed == {"protocol"}
    assert told["port"] == "ok"


async def test_a_ca_file_that_is_none(tmp_path: Path) -> None:
    with silent_port() as port:
        told = await examined(f"quic://127.0.0.1:{port}", ca=ca_of(b"nothing", tmp_path))
    assert told.failed == {"certificate chain"}


async def test_a_gateway_that_wants_a_token(tmp_path: Path) -> None:
    account, stranger = write_account(tmp_path / "acme.json"), write_account(tmp_path / "globex.json", "globex")
    async with open_gateway(settings=REQUIRED) as gateway:
        trusted = ca_of(gateway.ca_pem, tmp_path)

        async def with_token(account: Path, presenter: str = "first_stream") -> Told:
            return await examined(gateway.endpoint, ca=trusted, credentials=account, presenter=presenter)

        told = await examined(gateway.endpoint, ca=trusted)
        assert told["length convention"] == "ok"
        assert told.failed == {"token"}
        assert "--credentials" in told.words("token")

        told = await with_token(account, "none")
        assert "--presenter" in told.words("token")

        told = await with_token(account)
        assert {told[step] for step in STEPS} == {"ok"}
        assert "acme" in told.words("credentials")

        told = await with_token(stranger)
        assert told.failed == {"token"}
        assert "refused the token" in told.words("token")


async def test_credentials_that_cannot_be_used(tmp_path: Path) -> None:
    async with open_gateway() as gateway:
        trusted = ca_of(gateway.ca_pem, tmp_path)
        told = await examined(gateway.endpoint, ca=trusted, credentials=trusted, presenter="first_stream")
    assert told.failed == {"credentials"}
    assert "not JSON" in told.words("credentials")
    assert told["token"] == "unknown"
    assert told["subscription"] == "ok"


async def inclusive_only(connection: Connection) -> None:
    """Replies to requests whose length counts itself, hangs up on all others, and acknowledges no subscription."""
    while True:
        try:
            stream = await connection.accept()
        except (trio.EndOfChannel, trio.BrokenResourceError):
            return
        assert isinstance(stream, BidiStream)
        data = bytearray()
        while chunk := await stream.receive_some():
            data += chunk
        with_length = int.from_bytes(data[:4], "little")
        try:
            request = decode_request(bytes(data))
        except RemoteProtocolError:
            request = None
        if request is None or with_length != len(data):
            await connection.aclose(CloseCode.PROTOCOL_ERROR, "not a frame")
            return
        if request.method_id == MethodId.GetActiveBuckets:
            body = messages.encode(messages.ListBucketsResponse())
            stream.write(encode_reply(request.method_id, body, form="inclusive"))
            stream.finish()


async def test_the_other_length_convention(ca: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentao_trio.cli.doctor.SUBSCRIBE_SECONDS", 0.5)  # it never answers
    endpoint = await nursery.start(listening, server_tls(), inclusive_only)
    told = await examined(endpoint, ca=ca)
    assert told.failed == {"length convention"}
    assert "give --rpc-length inclusive" in told.words("length convention")
    told = await examined(endpoint, ca=ca, rpc_length="inclusive")
    assert told.failed == set()
    assert told["subscription"] == "unknown"


# -- the command ------------------------------------------------------------------------------------------------------


def doctor(*arguments: str) -> int:
    status: int = app(["doctor", *arguments])
    return status


def test_the_command_when_all_is_well(gateway_process: GatewayProcess, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(gateway_process.endpoint, "--ca", str(gateway_process.ca)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "all is well"
    assert [line.split("  ")[0] for line in lines[:-1]] == ["ok"] * len(STEPS)


def test_the_command_when_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with silent_port() as port:
        assert doctor(f"quic://127.0.0.1:{port}") == 1
    out = capsys.readouterr().out
    assert "\nfailed   port " in out
    assert "right: start the gateway there" in out
    assert out.endswith("failed: port\n")


def test_mistakes_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor("https://gateway.example") == 2
    assert "expected quic://HOST:PORT" in capsys.readouterr().err
    assert doctor("quic://127.0.0.1:1", "--presenter", "first_stream") == 2
    assert "--credentials" in capsys.readouterr().err
