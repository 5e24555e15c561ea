"""Engine.IO 4 and Socket.IO 5, case by case as the two protocols document them, against the live server.

Only what is binary is left out of the server, on purpose: no live event is. That is tested as a refusal.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from agentao_trio import live
from agentao_trio.hub import Hub
from agentao_trio.live import LiveServer, Pace
from agentao_trio.records import RecordKind
from tests.support.live_browser import HEADERS, Browser, ask, browser

SEPARATOR = "\x1e"
#: An event that is answered, and its answer.
ASKED, ANSWERED = '421["subscribe_to_transcripts"]', '431[{"ok":true}]'


@attrs.frozen
class Desk:
    """A live server with nothing to show, and what talks to it."""

    server: LiveServer
    nursery: trio.Nursery

    async def http(self, method: str, query: str, body: str = "") -> tuple[int, str]:
        """Status and body of one request on a connection of its own."""
        head = f"{method} /socket.io/?{query} HTTP/1.1\r\n{HEADERS}content-length: {len(body.encode())}\r\n\r\n"
        answer = await ask(self.server, self.nursery, head + body)
        status, _, text = answer.partition(b"\r\n\r\n")
        return int(status.split()[1]), text.decode()

    async def open_polling(self) -> str:
        """The query of a new session that polls."""
        status, opening = await self.http("GET", "EIO=4&transport=polling")
        assert (status, opening[0]) == (200, "0")
        return f"EIO=4&transport=polling&sid={json.loads(opening[1:])['sid']}"

    async def open_websocket(self, query: str = "") -> Browser:
        """A WebSocket, with the handshake of Engine.IO behind it unless it is for a session that exists."""
        one = browser(self.server, self.nursery)
        await one.start(query.replace("polling", "websocket") or "EIO=4&transport=websocket")
        if await one.accepted() and not query:
            assert (await one.hear() or "").startswith("0{")
        return one

    async def ended(self, one: Browser) -> int | None:
        """The code with which the server closes, once nothing is left of the connection."""
        while await one.hear() is not None:
            pass
        await one.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        return one.closed_with


@asynccontextmanager
async def desk(**options: Any) -> AsyncIterator[Desk]:
    async with live.serve(Hub(), **options) as server, trio.open_nursery() as nursery:
        yield Desk(server, nursery)
        nursery.cancel_scope.cancel()


# -- Engine.IO: handshake -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("transport", "upgrades"), [("polling", ["websocket"]), ("websocket", [])])
async def test_a_session_opens_with_its_terms(transport: str, upgrades: list[str]) -> None:
    async with desk(pace=Pace(ping_interval=0.3, ping_timeout=0.2)) as on:
        if transport == "polling":
            opening = (await on.http("GET", "EIO=4&transport=polling"))[1]
        else:
            one = browser(on.server, on.nursery)
            await one.start()
            opening = await one.hear() or ""
        terms = json.loads(opening[1:])
        assert opening[0] == "0"
        assert isinstance(terms.pop("sid"), str)
        assert terms == {"upgrades": upgrades, "pingInterval": 300, "pingTimeout": 200, "maxPayload": 100_000}


@pytest.mark.parametrize(
    ("method", "query", "code"),
    [
        ("GET", "transport=polling", 5),
        ("GET", "EIO=abc&transport=polling", 5),
        ("GET", "EIO=3&transport=polling", 5),
        ("GET", "EIO=4", 0),
        ("GET", "EIO=4&transport=abc", 0),
        ("GET", "EIO=4&transport=polling&sid=unknown", 1),
        ("GET", "EIO=4&transport=websocket", 3),
        ("POST", "EIO=4&transport=polling", 2),
        ("PUT", "EIO=4&transport=polling", 2),
    ],
)
async def test_a_handshake_that_is_none(method: str, query: str, code: int) -> None:
    async with desk() as on:
        status, body = await on.http(method, query)
        assert (status, json.loads(body)["code"]) == (400, code)
        assert on.server.statistics().clients == 0


# -- Engine.IO: messages --------------------------------------------------------------------------------------------


async def test_one_packet_and_several_by_polling() -> None:
    async with desk() as on:
        session = await on.open_polling()
        assert await on.http("POST", session, "40") == (200, "ok")
        connected = (await on.http("GET", session))[1].split(SEPARATOR)
        assert [packet[:2] for packet in connected] == ["40", "42"]
        several = SEPARATOR.join(['421["subscribe_to_transcripts"]', '422["nonsense"]', '423["subscribe_to_call"]'])
        assert await on.http("POST", session, several) == (200, "ok")
        answers = (await on.http("GET", session))[1].split(SEPARATOR)
        assert [answer[:3] for answer in answers] == ["431", "432", "433"]


@pytest.mark.parametrize("body", ["abc", "", "40" + SEPARATOR, "bAQIDBA==", SEPARATOR.join(["2"] * 2000)])
async def test_a_body_that_is_no_payload_ends_the_session(body: str) -> None:
    async with desk() as on:
        session = await on.open_polling()
        assert (await on.http("POST", session, body))[0] == 400
        assert (await on.http("GET", session))[0] == 400
        assert on.server.statistics().packets_refused == 1


async def test_two_polls_at_once_end_the_session() -> None:
    async with desk() as on:
        session = await on.open_polling()
        first: list[tuple[int, str]] = []

        async def poll() -> None:
            first.append(await on.http("GET", session))

        on.nursery.start_soon(poll)
        await trio.sleep(0.01)
        assert (await on.http("GET", session))[0] == 400
        await trio.sleep(0.01)
        assert first == [(200, "1")]
        assert (await on.http("GET", session))[0] == 400


@pytest.mark.parametrize("said", ["abc", b"\1\2\3\4", "5", "6", "0{}"])
async def test_a_message_that_is_no_packet_ends_the_session(said: str | bytes) -> None:
    async with desk() as on:
        one = await on.open_websocket()
        await one.say(said)
        assert await on.ended(one) == 1002
        assert on.server.statistics().packets_refused == 1


# -- Engine.IO: heartbeat -------------------------------------------------------------------------------------------


async def test_pings_by_polling(autojump_clock: MockClock) -> None:
    async with desk() as on:
        session = await on.open_polling()
        for beat in range(1, 4):
            if beat == 2:
                await on.http("POST", session, "40")
                await on.http("GET", session)
            assert await on.http("GET", session) == (200, "2")
            assert await on.http("POST", session, "3") == (200, "ok")
        assert on.server.statistics().heartbeats_missed == 0


@pytest.mark.parametrize("is_connected", [True, False])
async def test_a_websocket_that_answers_no_ping_is_closed(is_connected: bool, autojump_clock: MockClock) -> None:
    async with desk() as on:
        one = await on.open_websocket()
        if is_connected:
            await one.say("40")
        began = trio.current_time()
        while await one.hear() is not None:
            pass
        assert trio.current_time() - began == pytest.approx(45, abs=0.1)
        assert on.server.statistics().heartbeats_missed == 1


async def test_a_session_that_polls_no_more_is_closed(autojump_clock: MockClock) -> None:
    async with desk() as on:
        session = await on.open_polling()
        await trio.sleep(45.1)
        assert (await on.http("GET", session))[0] == 400


# -- Engine.IO: close and upgrade -----------------------------------------------------------------------------------


async def test_a_client_that_polls_closes() -> None:
    async with desk() as on:
        session = await on.open_polling()
        polled: list[tuple[int, str]] = []

        async def poll() -> None:
            polled.append(await on.http("GET", session))

        on.nursery.start_soon(poll)
        await trio.sleep(0.01)
        assert (await on.http("POST", session, "1"))[0] == 200
        await trio.sleep(0.01)
        assert polled == [(200, "6")]
        assert (await on.http("GET", session))[0] == 400


async def test_a_client_with_a_websocket_closes() -> None:
    async with desk() as on:
        one = await on.open_websocket()
        await one.say("1")
        assert await one.hear() is None
        assert on.server.statistics().clients == 0


async def test_an_upgrade() -> None:
    async with desk() as on:
        session = await on.open_polling()
        await on.http("POST", session, "40")
        await on.http("GET", session)
        socket = await on.open_websocket(session)
        await socket.say("2probe")
        assert await socket.hear() == "3probe"
        assert await on.http("GET", session) == (200, "6")
        await socket.say("5")
        await socket.say(ASKED)
        assert await socket.hear() == ANSWERED
        # The session is the WebSocket's now: whoever comes otherwise is none of its own, and does it no harm.
        assert (await on.http("GET", session))[0] == 400
        assert (await on.open_websocket(session)).refused_with == 400
        await socket.say(ASKED)
        assert await socket.hear() == ANSWERED


@pytest.mark.parametrize("said", ["2", "2no", "4hello", "5", "3probe"])
async def test_an_upgrade_begins_with_a_probe_or_the_session_goes_on_polling(said: str) -> None:
    async with desk() as on:
        session = await on.open_polling()
        socket = await on.open_websocket(session)
        await socket.say(said)
        assert await socket.hear() is None
        assert await on.http("POST", session, "40") == (200, "ok")
        assert (await on.http("GET", session))[1].startswith("40")


async def test_an_upgrade_that_is_not_gone_through_with(autojump_clock: MockClock) -> None:
    async with desk() as on:
        session = await on.open_polling()
        socket = await on.open_websocket(session)
        await socket.say("2probe")
        assert await socket.hear() == "3probe"
        assert await socket.hear() is None  # in time, and without a word
        assert (await on.http("GET", session))[1][0] in "26"


# -- Socket.IO: connect and disconnect ------------------------------------------------------------------------------


@pytest.mark.parametrize("connect", ["40", "40/,", '40{"token":"123"}', "40/?a=b,"])
async def test_the_main_namespace(connect: str) -> None:
    async with desk() as on:
        one = await on.open_websocket()
        await one.say(connect)
        answer = await one.hear() or ""
        assert answer.startswith("40{")
        assert json.loads(answer[2:]).keys() == {"sid"}


async def test_another_namespace_is_refused_and_the_main_one_can_still_be_connected() -> None:
    async with desk() as on:
        one = await on.open_websocket()
        for connect in ("40/random", "40/random,", '40/random,{"token":"abc"}'):
            await one.say(connect)
            assert await one.hear() == '44/random,{"message":"Invalid namespace"}'
        await one.say("40")
        assert (await one.hear() or "").startswith("40{")


@pytest.mark.parametrize("said", ["4abc", ASKED, "41", "4", "43", "44{}", "40[]", "401{}", "40{", "42/random,[1]"])
async def test_a_first_packet_that_does_not_connect_ends_the_session(said: str) -> None:
    async with desk() as on:
        one = await on.open_websocket()
        await one.say(said)
        assert await on.ended(one) == 1002


async def test_connecting_twice_ends_the_session() -> None:
    async with desk() as on:
        one = browser(on.server, on.nursery)
        await one.connect()
        await one.event("active_calls")
        await one.say("40")
        assert await on.ended(one) == 1002


async def test_a_session_that_connects_to_nothing_is_closed_even_if_it_is_alive(
    autojump_clock: MockClock,
) -> None:
    async with desk() as on:
        one = await on.open_websocket()
        pings = 0
        while await one.hear() == "2":
            pings += 1
            await one.say("3")
        assert (pings, on.server.statistics().clients) == (1, 0)


async def test_disconnecting_leaves_a_session_that_hears_nothing_and_may_connect_again(
    autojump_clock: MockClock,
) -> None:
    async with desk() as on:
        one = browser(on.server, on.nursery)
        await one.connect()
        await one.event("active_calls")
        await one.say('42["subscribe_to_calls"]')
        await one.event("active_calls")
        await one.event("quality_history")
        await one.say("41")
        await trio.testing.wait_all_tasks_blocked()
        on.server._hub.publish(RecordKind.CALL, "c1", phase="began", direction="inbound")
        assert await one.hear() == "2", "the next that is heard is a ping"
        await one.say("3")
        await one.say("40")
        assert (await one.hear() or "").startswith("40{")
        assert (await one.event("active_calls"))[0][0]["callSid"] == "c1"


# -- Socket.IO: events, acknowledgements, attachments ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (ASKED, ANSWERED),
        ('42456["subscribe_to_transcripts",1,"2",{"3":[true]}]', '43456[{"ok":true}]'),
        ('420["nonsense"]', '430[{"ok":false,"error":"there is no such request"}]'),
        ('42/,7["subscribe_to_transcripts"]', '437[{"ok":true}]'),
    ],
)
async def test_an_event_is_answered_where_an_answer_is_asked_for(said: str, answer: str) -> None:
    async with desk() as on:
        one = browser(on.server, on.nursery)
        await one.connect()
        await one.event("active_calls")
        await one.say('42["subscribe_to_transcripts"]')  # not answered
        await one.say("430[1]")  # answers nothing
        await one.say(said)
        assert await one.hear() == answer


@pytest.mark.parametrize(
    "said",
    [
        "42",
        "42{}",
        "42[]",
        "42[1]",
        '42["disconnect"]',
        "42abc[]",
        '42999999999999999999["a"]',
        "43",
        "43[]",
        "430{}",
        "46[]",
        "49",
        '451-["a",{"_placeholder":true,"num":0}]',
        '461-0[{"_placeholder":true,"num":0}]',
        '45-["a"]',
    ],
)
async def test_packets_that_no_client_should_send_and_binary_ones_end_the_session(said: str) -> None:
    async with desk() as on:
        one = browser(on.server, on.nursery)
        await one.connect()
        await one.event("active_calls")
        await one.say(said)
        assert await on.ended(one) == 1002
        assert (on.server.statistics().packets_refused, on.server.statistics().defects) == (1, 0)


# -- HTTP -----------------------------------------------------------------------------------------------------------


async def test_a_body_that_is_too_long_is_refused_and_the_session_goes_on() -> None:
    async with desk() as on:
        session = await on.open_polling()
        assert (await on.http("POST", session, "4" + "x" * 2_000_000))[0] == 413
        assert (await on.http("POST", session, "40"))[0] == 200
        assert (await on.http("GET", session))[1].startswith("40{")


async def test_who_asks_only_for_the_head_gets_no_body() -> None:
    async with desk() as on:
        answer = await ask(on.server, on.nursery, f"HEAD / HTTP/1.1\r\n{HEADERS}\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"content-length: " in head
        assert body == b""


async def test_a_session_whose_upgrade_is_not_gone_through_with_goes_on_polling() -> None:
    async with desk() as on:
        session = await on.open_polling()
        one = await on.open_websocket(session)
        await one.say("2probe")
        assert await one.hear() == "3probe"
        await one.say("40")
        assert await one.hear() is None
        assert (await on.http("POST", session, "40"))[0] == 200
        assert (await on.http("GET", session))[1].startswith("40{")


async def test_an_answer_to_nothing_is_left_alone_and_a_refusal_is_not_a_clients_to_send() -> None:
    async with desk() as on:
        one = await on.open_websocket()
        await one.say("40")
        assert (await one.hear() or "").startswith("40{")
        await one.say("431[]")
        await one.say("44{}")
        assert await on.ended(one) is not None
        assert on.server.statistics().packets_refused == 1
