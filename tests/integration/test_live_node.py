"""The live server and the official Socket.IO client, in every way in which the two can talk."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from agentao_trio import live
from agentao_trio.hub import Hub
from agentao_trio.live import LiveServer
from agentao_trio.records import RecordKind
from tests.support.node_packages import NodeProcess, run_node
from tests.support.ports import free_port

TRANSPORTS = {"websocket": ["websocket"], "polling": ["polling"], "upgrade": ["polling", "websocket"]}


def begin(hub: Hub, call_sid: str = "c1") -> None:
    hub.publish(RecordKind.CALL, call_sid, phase="began", direction="outbound", caller="100", callee="200")


def client(server: LiveServer | str, **options: Any) -> Any:
    url = server if isinstance(server, str) else server.url
    return run_node("client.mjs", json.dumps({"url": url, **options}))


async def subscribe(node: NodeProcess, *request: str) -> Any:
    """Ask for something, and return what came before the answer to it, by name."""
    await node.event("connect")
    await node.say(request)
    return (await node.event("ack"))["args"]


async def upgraded(node: NodeProcess, times: int = 1) -> None:
    """Wait until the client has gone over from polling to a WebSocket so many times."""
    while sum(line["name"] == "upgrade" for line in node.lines) < times:
        await node.line()


@pytest.mark.parametrize("way", TRANSPORTS)
async def test_a_client_gets_the_state_and_what_changes_it(way: str) -> None:
    hub = Hub()
    async with live.serve(hub) as server, client(server, transports=TRANSPORTS[way]) as node:
        begin(hub)
        assert await subscribe(node, "subscribe_to_calls") == ["subscribe_to_calls", {"ok": True}]
        calls, meta = (await node.event("active_calls"))["args"]
        assert [call["callSid"] for call in calls] == ["c1"]
        if way == "upgrade":
            await upgraded(node)
        for mos in (4.0, 4.1, 4.2):
            hub.publish(RecordKind.QUALITY, "c1", mos=mos, final=False)
        updates = [(await node.event("call_update")) for _ in range(4)]
        assert [update["args"][0]["seq"] for update in updates] == [2, 3, 4, 5]
        assert updates[0]["args"][0]["eventId"] == f"{meta['epoch']}:c1:2"
        assert updates[-1]["transport"] == TRANSPORTS[way][-1]
        assert server.statistics().packets_refused == 0


async def test_rooms_of_one_call_and_of_its_transcript() -> None:
    hub = Hub()
    async with live.serve(hub) as server, client(server, transports=["websocket"]) as node:
        begin(hub, "c1")
        begin(hub, "c2")
        await subscribe(node, "subscribe_to_call", "c1")
        full = (await node.event("call_data"))["args"][0]
        assert full["data"]["to"] == "200"
        assert [event["type"] for event in full["events"]] == ["new_call"]
        await node.say(["subscribe_to_call_transcript", "c1"])
        assert (await node.event("call_transcript"))["args"][0]["transcript"] == {"messages": []}
        for sid in ("c2", "c1"):
            message: dict[str, Any] = {
                "item_id": "i",
                "order": 0,
                "role": "user",
                "text": f"from {sid}",
                "phase": "final",
            }
            hub.publish(RecordKind.TRANSCRIPT, sid, **message)
        assert (await node.event("transcript_message"))["args"][0]["message"]["message"] == "from c1"
        assert (await node.event("call_transcript_message"))["args"][0]["tseq"] == 1
        await node.say(["unsubscribe_from_call", "c1"])
        assert (await node.event("ack"))["args"] == ["unsubscribe_from_call", {"ok": True}]
        hub.publish(RecordKind.TOOL, "c1", name="f", tool_call_id="t", phase="started")
        await node.say(["subscribe_to_calls"])
        await node.event("active_calls")
        assert "call_data" not in [line["name"] for line in node.lines[-4:]]


async def test_a_request_that_makes_no_sense_is_answered() -> None:
    async with live.serve(Hub()) as server, client(server) as node:
        assert (await subscribe(node, "subscribe_to_call"))[1] == {"ok": False, "error": "the call's sid is missing"}
        await node.say(["hang_up_everything"])
        assert (await node.event("ack"))["args"][1]["ok"] is False


async def test_a_token_is_asked_for_and_a_tenant_sees_its_own_calls() -> None:
    hub = Hub()
    async with live.serve(hub, token="all", tenants={"theirs": "acme"}) as server:
        async with client(server, auth={"token": "wrong"}) as stranger:
            assert (await stranger.event("connect_error"))["args"] == ["A valid token is required"]
        begin(hub, "ours")
        event = {"call_sid": "theirs", "event_type": "CHANNEL_CREATE", "tenant_id": "acme", "status": "RINGING"}
        hub.publish(RecordKind.EVENT, "theirs", verdict="in_order", event=event)
        async with client(server, auth={"token": "theirs"}) as tenant, client(server, auth={"token": "all"}) as desk:
            await subscribe(tenant, "subscribe_to_calls")
            await subscribe(desk, "subscribe_to_calls")
            assert [call["callSid"] for call in (await tenant.event("active_calls"))["args"][0]] == ["theirs"]
            assert {call["callSid"] for call in (await desk.event("active_calls"))["args"][0]} == {"ours", "theirs"}
            for sid in ("ours", "theirs"):
                hub.publish(RecordKind.TOOL, sid, name="f", tool_call_id="t", phase="started")
            assert (await tenant.event("call_update"))["args"][0]["callSid"] == "theirs"
            assert (await desk.event("call_update"))["args"][0]["callSid"] == "ours"
            await tenant.say(["subscribe_to_call", "ours"])
            await tenant.event("ack")
            assert "call_data" not in [line["name"] for line in tenant.lines]
        assert server.statistics().clients_refused == 1


@pytest.mark.parametrize("way", TRANSPORTS)
async def test_a_client_comes_back_to_a_server_that_was_started_anew(way: str) -> None:
    hub = Hub()
    port = free_port()
    async with client(f"http://127.0.0.1:{port}/", transports=TRANSPORTS[way]) as node:
        epochs = []
        for _ in range(2):
            async with live.serve(hub, port=port):
                epochs.append((await node.event("active_calls"))["args"][1]["epoch"])
                if way == "upgrade":
                    await upgraded(node, times=len(epochs))
            [reason, code] = (await node.event("disconnect"))["args"]
            # "io server disconnect" would be final: the client would not come back by itself.
            assert reason in ("transport close", "transport error")
            assert code == (None if way == "polling" else 1001)
        assert epochs[0] != epochs[1]


async def test_a_slow_client_loses_events_and_gets_the_state() -> None:
    hub = Hub()
    async with live.serve(hub) as server, client(server, transports=["websocket"], slow=True) as node:
        begin(hub)
        await node.event("connect")
        await node.say(["subscribe_to_calls"])
        filling = "x" * 20_000
        with trio.fail_after(120):
            number = 0
            while not server.statistics().overflows:
                number += 1
                hub.publish(
                    RecordKind.TOOL, "c1", name="f", tool_call_id=str(number), arguments=filling, phase="requested"
                )
                await trio.lowlevel.checkpoint()
                if not number % 50:
                    await trio.sleep(0.01)
        assert server.statistics().bytes_waiting <= 5_000_000
        await node.say("resume")
        with trio.fail_after(120):
            while True:
                line = await node.event("active_calls")
                if line["args"][0] and line["args"][0][0]["seq"] == number + 1:
                    break
