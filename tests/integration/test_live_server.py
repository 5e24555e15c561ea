"""The live server in virtual time, over streams in memory: heartbeats, limits, who is let in, and how it ends."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from agentao_trio import CallState, live
from agentao_trio.hub import Hub
from agentao_trio.records import RecordKind
from tests.support.live_browser import HEADERS, Browser, ask, browser


def begin(hub: Hub, call_sid: str = "c1") -> None:
    hub.publish(RecordKind.CALL, call_sid, phase="began", direction="outbound", caller="100", callee="200")


async def test_a_client_that_answers_pings_stays_and_one_that_does_not_goes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with live.serve(Hub()) as server, trio.open_nursery() as nursery:
        lively, dead = browser(server, nursery), browser(server, nursery)
        for each in (lively, dead):
            await each.connect()
        for _ in range(4):
            while await lively.hear() != "2":
                pass
            await lively.say("3")
        statistics = server.statistics()
        assert (statistics.clients, statistics.heartbeats_missed) == (1, 1)
        nursery.cancel_scope.cancel()


async def test_a_client_that_polls_and_goes_is_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    async with live.serve(Hub()) as server, trio.open_nursery() as nursery:
        opening = await ask(server, nursery, f"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n{HEADERS}\r\n")
        assert b'"upgrades":["websocket"]' in opening
        assert server.statistics().clients == 1
        await trio.sleep(60)
        assert server.statistics().clients == 0
        nursery.cancel_scope.cancel()


async def test_leaving_the_block_closes_with_1001() -> None:
    async with trio.open_nursery() as nursery:
        async with live.serve(Hub()) as server:
            one = browser(server, nursery)
            await one.connect()
            await one.event("active_calls")
            nursery.start_soon(server.answer, trio.testing.memory_stream_pair()[0])
            client = server.statistics().clients
            nursery.cancel_scope.cancel()
        assert client == 1
    assert await one.hear() is None
    assert one.closed_with == 1001


async def test_a_client_that_takes_nothing_is_dropped_and_costs_no_more_than_its_bound(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hub = Hub()
    async with live.serve(hub) as server, trio.open_nursery() as nursery:
        ours, theirs = trio.testing.lockstep_stream_pair()  # takes nothing that is not being read
        nursery.start_soon(server.answer, theirs)
        stalled = Browser(ours)
        await stalled.connect()
        await stalled.say('42["subscribe_to_calls"]')
        begin(hub)
        for number in range(5000):
            hub.publish(RecordKind.TOOL, "c1", name="f", tool_call_id=str(number), arguments="x" * 2000, phase="done")
            if number % 100 == 0:
                await trio.sleep(0.01)
                assert server.statistics().bytes_waiting <= 4 * 1024 * 1024
        await trio.sleep(1)
        assert server.statistics().overflows == 1
        await trio.sleep(20)
        statistics = server.statistics()
        assert (statistics.clients, statistics.write_timeouts, statistics.bytes_waiting) == (0, 1, 0)
        nursery.cancel_scope.cancel()


async def test_pings_are_answered_and_go_before_events() -> None:
    async with live.serve(Hub()) as server, trio.open_nursery() as nursery:
        one = browser(server, nursery)
        await one.connect()
        await one.event("active_calls")
        await one.ping()
        await one.say('421["subscribe_to_calls"]')
        assert await one.hear() == '431[{"ok":true}]'
        assert one.pongs == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "said",
    [
        "",
        "x",
        "9",
        "4",
        "42",
        "42[",
        "4" + "2" + "[" * 100_000,
        "43[]",
        '45["a"]',
        "0",
        "4" + "0[]",
        "2",
        "x" * 200_000,
    ],
    ids=lambda said: f"{said[:8]!r} of {len(said)}",
)
async def test_nonsense_ends_its_client_and_nothing_else(said: str) -> None:
    async with live.serve(Hub()) as server, trio.open_nursery() as nursery:
        bad, good = browser(server, nursery), browser(server, nursery)
        for each in (bad, good):
            await each.connect()
            await each.event("active_calls")
        await bad.say(said)
        assert await bad.hear() is None
        assert bad.closed_with == 1002
        await bad.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        await good.say('421["subscribe_to_calls"]')
        assert await good.hear() == '431[{"ok":true}]'
        assert (server.statistics().packets_refused, server.statistics().defects) == (1, 0)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("query", "origin", "status"),
    [
        ("EIO=4&transport=websocket", "https://evil.example", 403),
        ("EIO=4&transport=websocket", "null", 403),
        ("EIO=3&transport=websocket", "http://127.0.0.1", 400),
        ("EIO=4&transport=websocket&sid=unknown", "http://127.0.0.1", 400),
        ("EIO=4&transport=carrier-pigeon", "http://127.0.0.1", 400),
    ],
)
async def test_who_is_not_let_in(query: str, origin: str, status: int) -> None:
    async with live.serve(Hub()) as server, trio.open_nursery() as nursery:
        stranger = browser(server, nursery)
        await stranger.start(query, origin)
        assert await stranger.hear() is None
        assert stranger.refused_with == status
        assert (server.statistics().clients, server.statistics().clients_refused) == (0, 1)
        nursery.cancel_scope.cancel()


async def test_another_name_for_this_machine_is_not_answered() -> None:
    # A page elsewhere may have its own name point to 127.0.0.1; it would then read as its own what we serve.
    async with live.serve(Hub()) as server, trio.open_nursery() as nursery:
        answer = await ask(server, nursery, "GET / HTTP/1.1\r\nhost: rebound.example\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 421 ")
        nursery.cancel_scope.cancel()


async def test_files_come_with_a_strict_policy_and_nothing_else_is_read() -> None:
    async with live.serve(Hub()) as server, trio.open_nursery() as nursery:
        script = await ask(server, nursery, f"GET /fold.js HTTP/1.1\r\n{HEADERS}\r\n")
        assert script.startswith(b"HTTP/1.1 200 ")
        assert b"content-security-policy: default-src 'none'; script-src 'self';" in script
        for path in ("/../server.py", "/%2e%2e/server.py", "/README.md", "//etc/passwd"):
            answer = await ask(server, nursery, f"GET {path} HTTP/1.1\r\n{HEADERS}\r\n")
            assert answer.startswith(b"HTTP/1.1 404 "), path
        assert (await ask(server, nursery, f"POST / HTTP/1.1\r\n{HEADERS}content-length: 0\r\n\r\n")).startswith(
            b"HTTP/1.1 405 "
        )
        assert await ask(server, nursery, "\0\0\0\r\n\r\n") == b""
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "desk.example"])
async def test_beyond_this_machine_a_token_is_required(host: str) -> None:
    with pytest.raises(ValueError, match="give a token"):
        async with live.serve(Hub(), host=host):
            pass


async def test_a_token_is_required_of_everybody() -> None:
    async with live.serve(Hub(), token="secret") as server, trio.open_nursery() as nursery:
        for auth in ("", '{"token":"no"}', '{"token":7}', '{"token":"\\ud800"}'):
            stranger = browser(server, nursery)
            await stranger.connect(auth)
            assert await stranger.hear() == '44{"message":"A valid token is required"}'
        friend = browser(server, nursery)
        await friend.connect('{"token":"secret"}')
        assert (await friend.event("active_calls"))[0] == []
        nursery.cancel_scope.cancel()


async def test_tokens_cannot_be_guessed_as_quickly_as_one_likes(autojump_clock: trio.testing.MockClock) -> None:
    async with live.serve(Hub(), token="secret") as server, trio.open_nursery() as nursery:
        stranger = browser(server, nursery)
        await stranger.connect('{"token":"0"}')
        answers = [await stranger.hear()]
        for guess in range(1, 40):
            await stranger.say(f'40{{"token":"{guess}"}}')
            answers.append(await stranger.hear())
        refused = '44{"message":"Too many requests"}'
        assert answers == 30 * ['44{"message":"A valid token is required"}'] + 10 * [refused]
        assert server.statistics().requests_refused == 10
        nursery.cancel_scope.cancel()


async def test_only_so_many_clients() -> None:
    async with live.serve(Hub(), max_clients=1) as server, trio.open_nursery() as nursery:
        first, second = browser(server, nursery), browser(server, nursery)
        await first.connect()
        await second.start()
        assert await second.hear() is None
        assert second.refused_with == 400
        nursery.cancel_scope.cancel()


async def test_calls_that_began_before_the_server_are_shown() -> None:
    class Session:
        def __init__(self) -> None:
            self.hub = Hub()
            self.calls = {"c9": _OpenCall()}

    async with live.serve(Session()) as server, trio.open_nursery() as nursery:
        one = browser(server, nursery)
        await one.connect()
        [call], _ = await one.event("active_calls")
        assert (call["callSid"], call["status"], call["from"]) == ("c9", "in-progress", "100")
        nursery.cancel_scope.cancel()


class _OpenCall:
    call_sid, direction, caller, callee, trunk_id = "c9", "inbound", "100", "200", "main"

    state = CallState.ANSWERED


async def test_a_client_that_asks_too_often_is_told_so(autojump_clock: trio.testing.MockClock) -> None:
    hub = Hub()
    async with live.serve(hub) as server, trio.open_nursery() as nursery:
        begin(hub)
        one = browser(server, nursery)
        await one.connect()
        await one.event("active_calls")
        for number in range(31):  # connecting is as much as one of these
            await one.say(f'42{number}["subscribe_to_calls"]')
            await trio.testing.wait_all_tasks_blocked()
        [error] = await one.event("error")
        assert (error["source"], error["code"], error["fatal"]) == ("server", "rate_limited", False)
        assert error["retryAfterMs"] == 500
        assert server.statistics().requests_refused == 2
        await trio.sleep(0.5)
        await one.say('4299["subscribe_to_calls"]')
        heard = await one.hear() or ""
        while not heard.startswith("4399"):
            heard = await one.hear() or ""
        assert heard == '4399[{"ok":true}]'
        assert server.statistics().clients == 1
        nursery.cancel_scope.cancel()


async def test_following_each_of_as_many_calls_as_one_may_is_not_too_much() -> None:
    async with live.serve(Hub()) as server, trio.open_nursery() as nursery:
        one = browser(server, nursery)
        await one.connect()
        for number in range(200):
            await one.say(f'421["subscribe_to_call","c{number}"]')
            assert await one.answer() == {"ok": True}
        await one.say('421["subscribe_to_call","one more"]')
        assert "200" in (await one.answer())["error"]
        assert server.statistics().requests_refused == 0
        nursery.cancel_scope.cancel()


async def test_a_client_that_does_not_stop_asking_is_dropped(autojump_clock: trio.testing.MockClock) -> None:
    async with live.serve(Hub()) as server, trio.open_nursery() as nursery:
        one = browser(server, nursery)
        await one.connect()
        answers = 0
        while server.statistics().clients and answers < 2000:
            await one.say('421["nonsense"]')
            await trio.testing.wait_all_tasks_blocked()
            answers += 1
        assert 1250 < answers < 1350
        assert server.statistics().floods == 1
        nursery.cancel_scope.cancel()


async def test_who_comes_late_is_told_the_quality_of_the_last_minute_once() -> None:
    hub = Hub()
    async with live.serve(hub) as server, trio.open_nursery() as nursery:
        begin(hub)
        for mos in (4.0, 4.1):
            hub.publish(RecordKind.QUALITY, "c1", mos=mos, jitter_ms=2.0, final=False)
        one = browser(server, nursery)
        await one.connect()
        await one.say('42["subscribe_to_calls"]')
        [history] = await one.event("quality_history")
        assert [(mos, jitter, loss) for _, mos, jitter, loss in history["c1"]] == [(4.0, 2.0, None), (4.1, 2.0, None)]
        # Asked again, as by a page that has missed a number, it is told the calls alone.
        await one.say('421["subscribe_to_calls"]')
        assert (await one.hear() or "").startswith("431")
        assert (await one.hear() or "").startswith('42["active_calls"')
        await one.say('421["nonsense"]')
        assert (await one.hear() or "").startswith("431")
        nursery.cancel_scope.cancel()
