"""A browser in the test's own loop: Chromium, told what to do over its debugging protocol.

What a test needs and no more: open a page, evaluate, press keys, look at what assistive technology is told, take a
picture. Everything a page logs as an error or that its Content-Security-Policy blocks is kept, and a test should
hold it against nothing.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trio
from websockets.exceptions import ConnectionClosed
from websockets.trio.client import ClientConnection, connect

__all__ = ["EXECUTABLE", "Browser", "Page", "open_browser"]

#: Where Chromium is, or None.
EXECUTABLE = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: Seconds that the browser may take to start, and an answer to come.
START_SECONDS, ANSWER_SECONDS = 120, 120
#: Keys by name, as the protocol wants them: code, and the text that they type.
KEYS = {
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    "Tab": (9, ""),
    "ArrowUp": (38, ""),
    "ArrowDown": (40, ""),
    "ArrowLeft": (37, ""),
    "ArrowRight": (39, ""),
    "Home": (36, ""),
    "End": (35, ""),
}


class Browser:
    """A running Chromium. Made by :func:`open_browser`."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._news = trio.lowlevel.ParkingLot()
        self._pages: dict[str, Page] = {}

    async def call(self, method: str, session: str = "", **params: Any) -> Any:
        """One command. Raises AssertionError for one that the browser refuses, or does not answer in time."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        await self._socket.send(json.dumps(message))
        with trio.move_on_after(ANSWER_SECONDS):
            while number not in self._answers:
                await self._news.park()
        assert number in self._answers, f"{method} was not answered"
        answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    async def page(self, *, width: int = 1440, height: int = 900, dark: bool = False, phone: bool = False) -> Page:
        """A new, empty page of so many CSS pixels."""
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await page.call(f"{domain}.enable")
        await page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        await page.prefers(dark=dark)
        return page

    async def read(self) -> None:
        """Hand out what the browser says, until it is gone."""
        with contextlib.suppress(ConnectionClosed):
            async for message in self._socket:
                parsed = json.loads(message)
                if "id" in parsed:
                    self._answers[parsed["id"]] = parsed
                elif parsed.get("sessionId") in self._pages:
                    self._pages[parsed["sessionId"]].hear(parsed["method"], parsed["params"])
                self._news.unpark_all()


class Page:
    """One page. Made by :meth:`Browser.page`."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        #: What went wrong in the page: uncaught exceptions, and what the browser itself complains of.
        self.errors: list[str] = []
        #: Every address that the page asked for.
        self.requests: list[str] = []

    def hear(self, method: str, params: dict[str, Any]) -> None:
        """Keep what a test wants to know of an event."""
        match method:
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description", details["text"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error" and params["entry"]["source"] != "network":
                self.errors.append(params["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Network.webSocketCreated":
                self.requests.append(params["url"])

    async def call(self, method: str, **params: Any) -> Any:
        return await self._browser.call(method, self._session, **params)

    async def open(self, url: str) -> None:
        """Go to an address. Returns before the page is loaded."""
        await self.call("Page.navigate", url=url)

    async def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited if a promise. Raises AssertionError for an exception."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, expression: str, *, within: float = 120) -> Any:
        """Wait until an expression is true, and return it. Raises AssertionError after ``within`` seconds."""
        with trio.move_on_after(within):
            while True:
                # While the page is being loaded there is nothing to ask.
                with contextlib.suppress(AssertionError):
                    if value := await self.run(expression):
                        return value
                await trio.sleep(0.05)
        raise AssertionError(f"not within {within:g} s: {expression}; errors {self.errors}")

    async def drawn(self) -> None:
        """Wait until all that was done so far has been drawn."""
        await self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    async def text(self, selector: str) -> str:
        """What an element says."""
        return str(await self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    async def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            code, text = KEYS.get(key, (0, key))
            event = {"key": key, "code": key, "windowsVirtualKeyCode": code}
            await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **event)
            await self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    async def click(self, selector: str) -> None:
        """Press an element with the mouse, where it is on the screen."""
        box = await self.run(
            f"((element) => {{ element.scrollIntoView({{block: 'nearest'}}); const b = element.getBoundingClientRect();"
            f" return [b.x + b.width / 2, b.y + b.height / 2]; }})(document.querySelector({json.dumps(selector)}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    async def prefers(self, *, dark: bool = False, still: bool = True) -> None:
        """What the person in front of the page has chosen: colours, and whether anything may move."""
        features = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce" if still else "no-preference",
        }
        await self.call(
            "Emulation.setEmulatedMedia", features=[{"name": name, "value": value} for name, value in features.items()]
        )

    async def accessible(self) -> list[dict[str, Any]]:
        """What assistive technology is told: role, name, value and properties of everything that is not ignored."""
        nodes = (await self.call("Accessibility.getFullAXTree"))["nodes"]
        return [
            {
                "role": node.get("role", {}).get("value"),
                "name": node.get("name", {}).get("value", ""),
                "value": node.get("value", {}).get("value"),
                **{item["name"]: item["value"].get("value") for item in node.get("properties", ())},
            }
            for node in nodes
            if not node.get("ignored")
        ]

    async def picture(self) -> bytes:
        """The page as a PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])


@contextlib.asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """Start Chromium with a profile of its own; leaving the block ends it and every process it started."""
    assert EXECUTABLE is not None, "there is no chromium"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        arguments += ["--disable-background-networking", "--disable-extensions", "--hide-scrollbars"]
        arguments += ["--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        process = await trio.lowlevel.open_process(
            [EXECUTABLE, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            url = await _debugging_url(Path(profile))
            async with connect(url, max_size=None, ping_interval=None) as socket, trio.open_nursery() as nursery:
                browser = Browser(socket)
                nursery.start_soon(browser.read)
                try:
                    yield browser
                finally:
                    # First of all, so that closing the connection has nobody to wait for.
                    _kill(process.pid)
                    nursery.cancel_scope.cancel()
        finally:
            _kill(process.pid)
            with trio.CancelScope(shield=True):
                await process.wait()


def _kill(group: int) -> None:
    """End a family of processes, which is in a group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


async def _debugging_url(profile: Path) -> str:
    with trio.fail_after(START_SECONDS):
        while True:
            with contextlib.suppress(OSError, ValueError):
                port, path = (profile / "DevToolsActivePort").read_text().splitlines()
                return f"ws://127.0.0.1:{int(port)}{path}"
            await trio.sleep(0.05)
