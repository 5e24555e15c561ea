"""The dashboard page in a real browser, with the calls of the embedded gateway and the server that ships the page."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import attrs
import pytest
import trio

from agentao_trio import ActiveCall, Session, open_session
from agentao_trio.gateway import open_gateway
from agentao_trio.live.server import LiveServer, serve
from agentao_trio.records import JSON, RecordKind
from tests.browser.chromium import EXECUTABLE, Page, open_browser

pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason="there is no chromium on this machine")

TOKEN = "a token that nobody guesses"
ECHO = "+15550100001"
#: What a caller may say, so that it is shown as text and as nothing else.
MARKUP = "<img src=x onerror=\"document.title='owned'\"> <script>document.title='owned'</script>"
HOSTILE = f"{MARKUP} \u202egnp.exe\u0007\u001b[31m"
ARABIC = "أريد تغيير موعدي إلى الجمعة"

#: The rows of the list that are shown, as text.
ROWS = "[...document.querySelectorAll('[data-sid]')].filter(row => !row.hidden).map(row => row.textContent)"
#: Text whose contrast with what is behind it is below WCAG's 4.5.
FAINT = """(() => {
  const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length > 3 ? n : [...n, 1]; };
  const linear = (v) => v / 255 <= .04045 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
  const light = (rgb) => { const [r, g, b] = rgb.map(linear);
    return .2126 * r + .7152 * g + .0722 * b; };
  const over = (top, under) => top.slice(0, 3).map((v, i) => v * top[3] + under[i] * (1 - top[3]));
  const ground = (element) => { if (!element) return [255, 255, 255];
    const own = parse(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, ground(element.parentElement)); };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    if (![...element.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !element.checkVisibility()) continue;
    if (element.closest("svg, .only-heard, .skip, noscript")) continue;
    let dim = 1;
    for (let e = element; e; e = e.parentElement) dim *= Number(getComputedStyle(e).opacity);
    const under = ground(element);
    const color = parse(getComputedStyle(element).color);
    const [a, b] = [light(over([...color.slice(0, 3), color[3] * dim], under)), light(under)];
    const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (contrast < 4.5) faint.push(`${element.className} ${element.textContent.slice(0, 20)}: ${contrast.toFixed(2)}`);
  }
  return faint; })()"""


@attrs.frozen
class Stage:
    """A session whose calls are served, and a page that is open."""

    session: Session
    page: Page
    server: LiveServer

    async def show(self) -> None:
        """Open the page with its token, and wait until it is connected."""
        await self.page.open(f"{self.server.url}#token={TOKEN}")
        await self.live()

    async def live(self) -> None:
        await self.page.until("document.querySelector('#connection').dataset.state === 'live'")

    def tell(self, kind: RecordKind, call_sid: str, **fields: JSON) -> None:
        """Publish a record of a call that there need not be."""
        self.session.hub.publish(kind, call_sid, data=lambda: dict(fields))

    def measure(self, call_sid: str, *, mos: float = 4.3, jitter: float = 2.5, loss: float = 0.1) -> None:
        figures = {"mos": mos, "jitter_ms": jitter, "packets_lost": 3, "packet_loss_pct": loss, "codec": "PCMU"}
        self.session.hub.publish(RecordKind.QUALITY, call_sid, data=lambda: figures)

    def pretend(self, number: int, *, ai: bool = False) -> str:
        """Tell of a call that there is not: what is shown of it comes from the records alone."""
        call_sid, callee = f"CA{number:06}", f"+1555020{number:04}"
        self.tell(RecordKind.CALL, call_sid, phase="began", direction="outbound", caller=ECHO, callee=callee)
        self.measure(call_sid)
        if ai:
            self.tell(RecordKind.CONVERSATION, call_sid, phase="connecting", provider="simulated", model="m", voice="v")
            self.tell(RecordKind.CONVERSATION, call_sid, phase="connected", model="m", voice="v", session_id="s")
        return call_sid


@contextlib.asynccontextmanager
async def browsing(
    *, width: int = 1440, height: int = 900, dark: bool = False, phone: bool = False
) -> AsyncIterator[tuple[Session, Page]]:
    """A session with the embedded gateway, and an empty page in which nothing may fail."""
    async with (
        open_gateway() as gateway,
        open_session(gateway.endpoint, tls=gateway.tls) as session,
        open_browser() as browser,
    ):
        page = await browser.page(width=width, height=height, dark=dark, phone=phone)
        yield session, page
        # The page may have asked nobody but its own server for anything, and told its token to no address.
        assert page.errors == []
        assert [url for url in page.requests if not url.split("//")[1].startswith("127.0.0.1:")] == []
        assert [url for url in page.requests if "token" in url] == []


@contextlib.asynccontextmanager
async def stage(
    *, width: int = 1440, height: int = 900, dark: bool = False, phone: bool = False
) -> AsyncIterator[Stage]:
    """Everything that a test needs; the page is empty yet."""
    async with (
        browsing(width=width, height=height, dark=dark, phone=phone) as (session, page),
        serve(session, token=TOKEN) as server,
    ):
        yield Stage(session, page, server)


def say(call: ActiveCall, order: int, role: str, text: str, *, interrupted: bool = False) -> None:
    """A final message of a call's conversation."""
    item = {"item_id": f"item{order}", "order": order, "role": role}
    final = {**item, "phase": "final", "text": text, "interrupted": interrupted}
    call.publish(RecordKind.TRANSCRIPT, data=lambda: final)


async def test_a_call_is_shown_from_its_beginning_to_its_end() -> None:
    async with stage() as at:
        page = at.page
        await at.show()
        assert "No calls right now" in await page.text("#list")
        async with await at.session.originate(ECHO, trunk_id="main") as call:
            await call.wait_answered()
            await page.until(f"{ROWS}[0]?.includes('In progress')")
            assert await page.text(".tile[data-key=active] .count") == "1"
            # Its quality is measured about once a second, and drawn; where nothing was heard there is none.
            await call.send_audio(bytes([0xFF]) * 800)
            await page.until("document.querySelector('.spark-line').getAttribute('points').split(' ').length > 1")
            await page.click("[data-sid]")
            await page.until("document.querySelector('.opened h2').innerText.includes('+15550100001')")
            call.publish(RecordKind.DETECTION, answered_by="human", confidence=0.83, detection_ms=1800)
            call.publish(RecordKind.RECORDING, recording_sid="RE1", status="completed", location="https://r.example/1")
            call.publish(RecordKind.RECORDING, recording_sid="RE2", status="completed", location="javascript:alert(1)")
            await page.until("document.querySelector('.detection')?.innerText.includes('83 %')")
            assert "Estimate" in await page.text(".detection")
            await page.until("document.querySelectorAll('.recordings li').length === 2")
            links = await page.run("[...document.querySelectorAll('.recordings a')].map(a => a.href)")
            assert links == ["https://r.example/1"], "only http and https become links"
            call.publish(
                RecordKind.TOOL, name="book", tool_call_id="t", phase="requested", arguments='{"slot": "9:20"}'
            )
            call.publish(RecordKind.TOOL, name="book", tool_call_id="t", phase="done", output="booked", seconds=0.25)
            await page.click("#tab-tools")
            await page.until("document.querySelector('.tools li')?.innerText.includes('Done')")
            await page.click(".tools summary")
            shown = await page.text(".tools li")
            assert "9:20" in shown
            assert "booked" in shown
            call.publish(RecordKind.ERROR, source="realtime", code="c", message="The model is away", fatal=False)
            await page.click("#tab-overview")
            await page.until("document.querySelector('.errors')?.innerText.includes('The model is away')")
            await page.click("#tab-quality")
            await page.until("document.querySelector('.plot').getAttribute('aria-valuetext').includes('MOS 4')")
        await page.until(f"{ROWS}[0].includes('Completed')")
        assert await page.text(".tile[data-key=ended] .count") == "1"
        await page.until("document.querySelector('#announcer').textContent.includes('Completed')")
        await page.click("#tab-events")
        assert (await page.text(".events li")).split("\n")[1] == "Call ended"


async def test_a_transcript_is_shown_as_it_is_spoken() -> None:
    async with stage() as at:
        page = at.page
        await at.show()
        async with await at.session.originate(ECHO, trunk_id="main") as call:
            await call.wait_answered()
            say(call, 0, "user", "Before anybody looked")
            await page.until(f"{ROWS}.length === 1")
            await page.click("[data-sid]")
            await page.click("#tab-conversation")
            await page.until("document.querySelector('.said')?.innerText === 'Before anybody looked'")
            call.publish(RecordKind.SPEECH, speaker="assistant", active=True)
            await page.until("[...document.querySelectorAll('.typing')].some(e => !e.hidden)")
            part = "Good mor"
            call.publish(
                RecordKind.TRANSCRIPT,
                item_id="item1",
                order=1,
                role="assistant",
                phase="delta",
                delta=part,
                offset=0,
                text=part,
            )
            await page.until("document.querySelector('.bubble[data-partial] .said')?.innerText === 'Good mor'")
            say(call, 1, "assistant", "Good morning.", interrupted=True)
            await page.until("document.querySelectorAll('.bubble')[1].innerText.includes('Good morning.')")
            assert await page.run("document.querySelectorAll('.bubble[data-partial]').length") == 0
            assert "Interrupted" in await page.text(".bubble:last-child")


async def test_who_comes_late_sees_the_quality_of_the_last_minute() -> None:
    async with stage() as at:
        at.pretend(1)
        for mos in (4.4, 4.2, 3.1, 3.9):
            await trio.sleep(0.02)
            at.measure("CA000001", mos=mos)
        await at.show()
        await at.page.until("document.querySelector('.spark-line').getAttribute('points').split(' ').length === 5")
        await at.page.click("[data-sid]")
        await at.page.click("#tab-quality")
        await at.page.until("document.querySelector('.plot').getAttribute('aria-valuemax') === '5'")
        # What comes now goes on from there, and nothing is there twice.
        at.measure("CA000001")
        await at.page.until("document.querySelector('.plot').getAttribute('aria-valuemax') === '6'")
        await at.page.until("document.querySelector('.spark-line').getAttribute('points').split(' ').length === 6")


async def test_a_call_that_another_worker_has_is_not_shown_any_more() -> None:
    async with stage() as at:
        await at.show()
        at.pretend(1)
        await at.page.until(f"{ROWS}.length === 1")
        await at.page.click("[data-sid]")
        await at.page.until("document.querySelector('.opened h2')?.checkVisibility()")
        at.pretend(2)
        await at.page.until(f"{ROWS}.length === 2")
        at.tell(RecordKind.CALL, "CA000001", phase="over", how="released")
        await at.page.until(f"{ROWS}.length === 1")
        await at.page.until("!document.querySelector('.opened h2')?.checkVisibility()")
        event = {"event_type": "CHANNEL_ANSWER", "codec": "PCMU"}
        at.tell(RecordKind.EVENT, "CA000001", verdict="in_order", event=event)
        at.tell(RecordKind.CALL, "CA000002", phase="over", how="hangup")
        await at.page.until(f"{ROWS}[0].includes('Completed')")
        assert await at.page.run(f"{ROWS}.length") == 1


async def test_a_hostile_transcript_is_text_and_nothing_else() -> None:
    async with stage() as at:
        page = at.page
        await at.show()
        async with await at.session.originate(ECHO, trunk_id="main") as call:
            await call.wait_answered()
            say(call, 0, "user", HOSTILE)
            say(call, 1, "user", ARABIC)
            call.publish(RecordKind.ERROR, source="realtime", message=HOSTILE, fatal=True)
            call.publish(RecordKind.TOOL, name=HOSTILE, tool_call_id="t", phase="requested", arguments=HOSTILE)
            await page.until(f"{ROWS}.length === 1")
            await page.click("[data-sid]")
            for tab in ("conversation", "tools", "events", "overview"):
                await page.click(f"#tab-{tab}")
                await page.until(f"document.querySelector('#view-{tab}').innerText.includes('<img src=x')")
            said = await page.run("document.querySelector('.said').textContent")
            assert said == HOSTILE.replace("\u202e", "⟨202E⟩").replace("\u0007", "⟨07⟩").replace("\u001b", "⟨1B⟩")
            assert await page.run("document.querySelectorAll('main img, main script, main a').length") == 0
            assert await page.run("document.title") == "Live calls"
            directions = await page.run(
                "[...document.querySelectorAll('.said')].map(e => getComputedStyle(e).direction)"
            )
            assert directions == ["ltr", "rtl"]


async def test_the_token_lets_in_and_leaves_the_address() -> None:
    async with stage() as at:
        page = at.page
        await page.open(f"{at.server.url}#token=wrong")
        await page.until("!document.querySelector('#gate').hidden")
        assert "not accepted" in await page.text("#gate-title")
        assert not await page.run("document.querySelector('#board').checkVisibility()")
        assert await page.run("location.href") == at.server.url
        # The field has the focus: whoever has the right one types it, and is in.
        await page.press(*TOKEN, "Enter")
        await at.live()
        assert await page.run("document.querySelector('#gate').hidden")
        assert TOKEN not in await page.run("location.href + document.documentElement.outerHTML")
        await page.call("Page.reload")
        await at.live()


async def test_the_page_comes_back_after_its_server_did() -> None:
    async with browsing() as (session, page), await session.originate(ECHO, trunk_id="main") as call:
        await call.wait_answered()
        async with serve(session, token=TOKEN) as server:
            at = Stage(session, page, server)
            await at.show()
            await page.until(f"{ROWS}.length === 1")
            await page.click("[data-sid]")
            await page.until("document.querySelector('.opened h2').checkVisibility()")
        await page.until("!document.querySelector('#banner').hidden")
        assert "Reconnecting" in await page.text("#connection")
        # What was known stays to be read until there is something newer.
        assert len(await page.run(ROWS)) == 1
        port = int(server.url.rstrip("/").rpartition(":")[2])
        async with serve(session, token=TOKEN, port=port):
            await at.live()
            assert await page.run("document.querySelector('#banner').hidden")
            # It is another server with numbers of its own: whatever was there is shown anew.
            await page.until(f"{ROWS}.length === 1 && {ROWS}[0].includes('In progress')")
            await page.call("Page.reload")
            await at.live()
            await page.until(f"{ROWS}.length === 1")


async def test_everything_can_be_done_by_keyboard() -> None:
    async with stage() as at:
        page = at.page
        await at.show()
        sids = [at.pretend(number) for number in range(5)]
        await page.until(f"{ROWS}.length === 5")
        focused = "document.activeElement.dataset.sid"
        await page.press("/")
        assert await page.run("document.activeElement.id") == "search"
        await page.press(*"0003")
        await page.until(f"{ROWS}.length === 1")
        await page.press("Escape")
        await page.until(f"{ROWS}.length === 5")
        await page.press("Escape")
        order = await page.run("[...document.querySelectorAll('[data-sid]')].map(row => row.dataset.sid)")
        assert sorted(order) == sids
        assert await page.run(focused) == order[0]
        await page.press("ArrowDown", "ArrowDown", "ArrowUp")
        assert await page.run(focused) == order[1]
        await page.press("End")
        assert await page.run(focused) == order[4]
        assert await page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        assert await page.run("document.querySelectorAll('[data-sid][tabindex=\"0\"]').length") == 1
        await page.press("Home", "ArrowDown", "Enter")
        await page.until("document.activeElement.tagName === 'H2'")
        assert await page.run("document.querySelector('[data-sid][aria-selected=true]').dataset.sid") == order[1]
        await page.run("document.querySelector('#tab-overview').focus()")
        await page.press("ArrowRight", "ArrowRight")
        assert await page.run("document.activeElement.id") == "tab-quality"
        await page.press("Tab")
        assert await page.run("document.activeElement.getAttribute('role')") == "slider"
        await page.press("Escape")
        await page.until(f"{focused} === '{order[1]}'")
        assert await page.run("document.querySelector('[data-sid][aria-selected=true]')") is None


async def test_filters_choose_what_is_shown() -> None:
    async with stage() as at:
        page = at.page
        await at.show()
        for number in range(6):
            at.pretend(number, ai=number % 2 == 0)
        at.measure("CA000003", mos=2.9, jitter=44.0, loss=6.0)
        await page.until(f"{ROWS}.length === 6")
        await page.click(".tile[data-key=ai]")
        await page.until(f"{ROWS}.length === 3")
        await page.click(".tile[data-key=ai]")
        await page.click(".tile[data-key=poor]")
        await page.until(f"{ROWS}.length === 1")
        assert "2.9" in (await page.run(ROWS))[0]
        await page.click(".tile[data-key=ended]")
        await page.until("document.querySelector('.empty')?.innerText.includes('No call matches')")
        await page.click(".list .empty button")
        await page.until(f"{ROWS}.length === 6")
        # However a number is written, it is found.
        await page.run("document.querySelector('#search').focus()")
        await page.press(*"(555) 020-0004")
        await page.until(f"{ROWS}.length === 1")


async def test_a_hundred_calls_and_a_thousand_events_a_second() -> None:
    async with stage() as at:
        page = at.page
        await at.show()
        calls = [at.pretend(number, ai=number % 3 == 0) for number in range(100)]
        await page.until(f"{ROWS}.length === 100")
        await page.click("[data-sid]")
        await page.run(
            "window.frames60 = 0; (function count() { window.frames60 += 1; requestAnimationFrame(count); })()"
        )
        began = trio.current_time()
        for number in range(3000):
            loss = (number % 50) / 10
            at.measure(calls[number % 100], mos=4.4 - loss / 5, jitter=loss, loss=loss)
            if number % 20 == 0:
                await trio.sleep_until(began + number / 1000)
        # Each call's last number arrives, so nothing was lost on the way and the page kept up.
        await page.run("document.querySelector('[data-sid=CA000099]').scrollIntoView()")
        await page.until("document.querySelector('[data-sid=CA000099] .lossPct .spark-value').textContent === '4.9'")
        # It was drawn all the while, however seldom a busy machine lets it.
        assert await page.run("window.frames60") > 10
        assert await page.text(".tile[data-key=active] .count") == "100"


async def test_assistive_technology_is_told_what_everything_is() -> None:
    async with stage() as at:
        page = at.page
        await at.show()
        at.pretend(1, ai=True)
        await page.until(f"{ROWS}.length === 1")
        await page.click("[data-sid]")
        await page.click("#tab-quality")
        await page.until("document.querySelector('.plot').getAttribute('aria-valuetext')")
        told = await page.accessible()
        named = {(node["role"], node["name"]) for node in told}
        assert {
            ("region", "Calls"),
            ("region", "Opened call"),
            ("search", "Filter the calls"),
            ("grid", "Calls"),
        } <= named
        assert {("slider", "Quality over time"), ("heading", "+15550200001"), ("columnheader", "MOS")} <= named
        assert {role for role, _ in named} >= {"banner", "main", "status", "tablist", "tabpanel"}
        # Whatever can be pressed or filled in has a name.
        needy = {"button", "link", "textbox", "searchbox", "combobox", "slider", "tab"}
        assert [node for node in told if node["role"] in needy and not node["name"]] == []
        assert [node["name"] for node in told if node["role"] == "tab" and node.get("selected")] == ["Quality"]
        row = next(node for node in told if node["role"] == "row" and node.get("selected"))
        assert row["name"].startswith("In progress Outbound +15550200001")
        slider = next(node for node in told if node["role"] == "slider")
        assert (slider["value"], slider["valuemin"], slider["valuemax"]) == (1, 1, 1), "one sample so far"
        # The protocol leaves the words of a slider out, so these are read from the element.
        words = await page.run("document.querySelector('.plot').getAttribute('aria-valuetext')")
        assert words.endswith("MOS 4.30, jitter 2.5 milliseconds, loss 0.10 per cent")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [(1440, 900), (390, 844)], ids=["desktop", "phone"])
async def test_it_can_be_read_in_every_light_and_size(dark: bool, size: tuple[int, int]) -> None:
    width, height = size
    async with stage(width=width, height=height, dark=dark, phone=width < 500) as at:
        page = at.page
        await at.show()
        assert await page.run(FAINT) == []
        sids = [at.pretend(number, ai=number % 2 == 0) for number in range(8)]
        at.measure(sids[0], mos=2.9, jitter=44.0, loss=6.0)
        at.tell(RecordKind.CALL, sids[5], phase="over", how="refused", error="No such number")
        at.tell(RecordKind.TOOL, sids[0], name="book", tool_call_id="t", phase="requested", arguments="{}")
        at.tell(RecordKind.TRANSCRIPT, sids[0], item_id="i", order=0, role="assistant", phase="final", text="Hello")
        await page.until(f"{ROWS}.length === 8")
        await page.until("document.querySelector('[data-sid=CA000000] .spark-line').getAttribute('points')")
        light = "getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] > 128"
        assert await page.run(light) is not dark
        assert await page.run(FAINT) == []
        # A phone shows the plots, too, and one thing at a time: the list, or a call.
        assert await page.run("document.querySelector('.spark svg').checkVisibility()")
        await page.run("document.querySelector('[data-sid=CA000000]').click()")
        await page.until("document.querySelector('.opened h2').checkVisibility()")
        assert await page.run("document.querySelector('.list').checkVisibility()") is (width > 500)
        for tab in ("overview", "conversation", "quality", "tools", "events"):
            await page.run(f"document.querySelector('#tab-{tab}').click()")
            await page.drawn()
            assert await page.run(FAINT) == [], tab
            assert await page.run("document.documentElement.scrollWidth <= innerWidth"), tab
        assert (await page.picture()).startswith(b"\x89PNG")
        if width < 500:
            await page.click(".back")
            await page.until("document.querySelector('.list').checkVisibility()")
        # The switch goes round, and what was chosen is remembered.
        await page.run("for (const wanted of ['light', 'dark']) document.querySelector('#theme').click()")
        assert await page.run(light) is False
        await page.call("Page.reload")
        await at.live()
        assert await page.run(light) is False
