"""A client's configuration as one value."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from agentao_trio import ActiveCall, AgenTaoClient, ClientTLS, config, serve
from agentao_trio.testing import MemoryNetwork, SimulatedGateway
from tests.support.accounts import account
from tests.support.scripted_gateway import accepting, serving


def test_the_sandbox_is_what_the_gateway_of_the_command_line_prints() -> None:
    sandbox = config.sandbox()
    assert sandbox.endpoint == "quic://127.0.0.1:9090"
    assert sandbox.options() == {
        "tls": ClientTLS(ca="ca.pem"),
        "credentials": None,
        "presenter": "none",
        "rpc_length": "exclusive",
    }
    assert config.sandbox(endpoint="quic://[::1]:9191", ca=Path("my.pem")) == config.ClientConfig(
        endpoint="quic://[::1]:9191", tls=ClientTLS(ca=Path("my.pem"))
    )


def test_production_needs_credentials_and_verifies() -> None:
    with pytest.raises(TypeError):
        config.production("quic://gateway.example:9090")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="needs credentials"):
        config.production("quic://gateway.example:9090", credentials="")
    production = config.production("quic://gateway.example:9090", credentials="account.json", presenter="first_stream")
    assert production.tls == ClientTLS()
    assert production.tls.verify
    assert production.options()["credentials"] == "account.json"
    assert production.options()["presenter"] == "first_stream"
    assert "account.json" not in repr(production)


async def refuse(call: ActiveCall) -> None:
    await call.hangup()


async def test_a_client_and_a_server_take_one_in_place_of_an_endpoint(gateway: SimulatedGateway) -> None:
    sandbox = config.sandbox(endpoint=gateway.endpoint, ca=gateway.server.ca_pem)
    async with AgenTaoClient(sandbox, trunks=["main"], socket=gateway.network.socket()) as client:
        client.on("INCOMING_CALL")(refuse)
        await gateway.call_in().is_hung_up()
    async with trio.open_nursery() as nursery:
        socket = gateway.network.socket()
        await nursery.start(lambda **kw: serve(refuse, sandbox, trunks=["main"], socket=socket, **kw))
        await gateway.call_in().is_hung_up()
        nursery.cancel_scope.cancel()


async def test_the_length_convention_goes_with_it(autojump_clock: MockClock) -> None:
    scripted = accepting()
    async with serving(scripted, MemoryNetwork()) as where:
        production = config.production(where["endpoint"], credentials=account(), rpc_length="inclusive")
        async with AgenTaoClient(production, tls=where["tls"], socket=where["socket"]):
            await scripted.connected.wait()
            await trio.sleep(1)
    assert {convention for *_, convention in scripted.requests} == {"inclusive"}


async def test_what_is_given_besides_goes_before_it(gateway: SimulatedGateway) -> None:
    elsewhere = config.sandbox(endpoint=gateway.endpoint, ca=b"no certificate at all")
    async with AgenTaoClient(elsewhere, **gateway.options()) as client:
        assert client.session.client_id
