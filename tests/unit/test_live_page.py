"""The files of the dashboard page: what a browser under a strict Content-Security-Policy may be given."""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import agentao_trio

PAGE = Path(agentao_trio.__file__).parent / "live" / "page"
#: Not ours: as its makers wrote it, and pinned.
VENDORED = "socket.io.min.js"
OURS = sorted(path for path in PAGE.glob("*.js") if path.name != VENDORED)
TEXTS = [*OURS, PAGE / "index.html", PAGE / "style.css", PAGE / "favicon.svg"]

#: What turns text into markup or code, or into a style that the policy forbids.
FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|setHTML|srcdoc"
    r"|\beval\(|new Function|setTimeout\(\s*[\"'`]|javascript:|\.cssText|setAttribute\(\s*[\"']style"
)
#: The name of an XML namespace is no address that anybody asks for.
OUTSIDE = re.compile(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[a-z0-9-]+\.[a-z]", re.IGNORECASE)


class Elements(HTMLParser):
    """Every start tag of a page with its attributes, and the text in scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._within = tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within in ("script", "style"):
            self.inline += data.strip()


INDEX = Elements((PAGE / "index.html").read_text())


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_nothing_turns_text_into_markup_or_code(path: Path) -> None:
    assert FORBIDDEN.findall(path.read_text()) == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_no_other_host_is_named(path: Path) -> None:
    # What stands in a comment is read by people alone.
    code = re.sub(r"^\s*(//|/?\*).*$", "", path.read_text(), flags=re.MULTILINE)
    assert OUTSIDE.findall(code) == []


def test_the_page_has_no_inline_script_style_or_handler() -> None:
    assert INDEX.inline == ""
    for tag, attributes in INDEX.found:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag


def test_whatever_the_page_names_is_there() -> None:
    named = {
        attributes.get("src") or attributes.get("href") for tag, attributes in INDEX.found if tag in ("script", "link")
    }
    named |= {name for path in OURS for name in re.findall(r'from "\./([\w.]+)"', path.read_text())}
    assert {name for name in named if name and not (PAGE / name).is_file()} == set()
    assert {path.name for path in OURS} <= named, "a module that nobody imports"


def test_every_module_says_what_it_is_for() -> None:
    assert [path.name for path in OURS if not path.read_text().startswith(("//", "/*"))] == []


def test_the_vendored_file_is_the_one_that_is_pinned() -> None:
    readme = (PAGE / "README.md").read_text()
    content = (PAGE / VENDORED).read_bytes()
    pinned = re.search(r"sha256\s+([0-9a-f]{64})", readme)
    version = re.search(r"socket\.io-client@([\d.]+)", readme)
    assert pinned is not None
    assert version is not None
    assert hashlib.sha256(content).hexdigest() == pinned[1]
    assert f"Socket.IO v{version[1]}\n".encode() in content


@pytest.mark.parametrize(
    "package",
    ["socket.io-client", "engine.io-client", "engine.io-parser", "socket.io-parser", "@socket.io/component-emitter"],
)
def test_the_licence_of_every_bundled_package_is_shipped(package: str) -> None:
    licences = (PAGE / "socket.io.LICENSES.txt").read_text()
    assert re.search(rf"^{re.escape(package)} \d+\.\d+\.\d+$", licences, re.MULTILINE)


@pytest.mark.parametrize(
    ("bad", "caught"),
    [
        ("row.innerHTML = text", True),
        ('element.setAttribute("style", text)', True),
        ("setTimeout('go()', 1)", True),
        ("row.textContent = text", False),
        ("setTimeout(() => go(), 1)", False),
    ],
)
def test_the_search_for_markup_finds_it(bad: str, caught: bool) -> None:
    assert bool(FORBIDDEN.search(bad)) is caught


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ('fetch("https://cdn.example.com/x.js")', True),
        ('import "//unpkg.com/x"', True),
        ("http://www.w3.org/2000/svg", False),
        ("a / b // c", False),
    ],
)
def test_the_search_for_other_hosts_finds_them(text: str, caught: bool) -> None:
    assert bool(OUTSIDE.search(text)) is caught
