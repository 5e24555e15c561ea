"""What the docstrings promise to say: what a thing is, and, of whatever can wait, what becomes of it when cancelled."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import agentao_trio

PAGES = Path(__file__).parents[2] / "docs" / "reference" / "api"
#: The modules that the reference describes.
DOCUMENTED = sorted(
    {name for page in PAGES.glob("*.md") for name in re.findall(r"automodule:: (\S+)", page.read_text())}
)
MODULES = [
    module.name
    for module in pkgutil.walk_packages(agentao_trio.__path__, "agentao_trio.")
    if not any(part.startswith("_") for part in module.name.split("."))
]

#: Silent about cancellation, and why.
UNCANCELLED = {
    "Connection.accept": "takes a stream without waiting, or waits and takes nothing",
    "SendStream.wait_send_all_might_not_block": "changes nothing",
    "BidiStream.wait_send_all_might_not_block": "changes nothing",
    "BidiStream.send_eof": "has done it before it lets others run",
    "UdpSocket.resolve": "changes nothing",
}


@attrs.frozen(kw_only=True)
class Public:
    """A public class or function of a module, or a public method or property of such a class."""

    module: str
    name: str
    thing: Any
    owner: type | None = None

    @property
    def said(self) -> str:
        """Its docstring; or, where its class names the protocol that it carries out, what that says of it."""
        return self.thing.__doc__ or next((each.__doc__ for each in self.like if each.__doc__), "")

    @property
    def like(self) -> Iterator[Any]:
        """What the docstrings of the class and of the method refer to: of a class, the method of the same name."""
        method = self.name.rpartition(".")[2]
        docs = (self.owner.__doc__ if self.owner else None, self.thing.__doc__)
        for reference in re.findall(r":(?:class|meth|func):`~?([\w.]+)`", " ".join(filter(None, docs))):
            found = resolve(reference, (self.owner or self.thing).__module__, self.owner)
            thing = getattr(found, method, None) if inspect.isclass(found) else found
            if inspect.isfunction(thing) or isinstance(thing, property):
                yield thing

    @property
    def can_wait(self) -> bool:
        function = inspect.unwrap(self.thing) if callable(self.thing) else self.thing
        return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)

    @property
    def tells_of_cancellation(self) -> bool:
        """In its own words, in those of its class for all methods, or in those of what it says it is like."""
        docs = [self.said, self.owner.__doc__ if self.owner else "", *(each.__doc__ for each in self.like)]
        return any(re.search(r"\bcancel", doc or "", re.IGNORECASE) for doc in docs)


def resolve(reference: str, module: str, owner: type | None) -> Any:
    """What a reference of a docstring is to, as far as it is one of ours."""
    thing: Any = importlib.import_module(module)
    head, _, rest = reference.partition(".")
    if head == "agentao_trio":
        path, _, last = reference.rpartition(".")
        try:
            return getattr(importlib.import_module(path), last, None)
        except ModuleNotFoundError:
            return None
    thing = getattr(thing, head, None) or getattr(owner, head, None)
    return getattr(thing, rest, None) if rest else thing


def is_protocol(thing: type) -> bool:
    return getattr(thing, "_is_protocol", False)


def public_of(module: str) -> Iterator[Public]:
    content = importlib.import_module(module)
    for name in getattr(content, "__all__", [name for name in vars(content) if not name.startswith("_")]):
        thing = getattr(content, name)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)) or not thing.__module__.startswith("agentao_trio"):
            continue
        yield Public(module=module, name=name, thing=thing)
        if not inspect.isclass(thing) or is_protocol(thing):
            continue  # what a protocol asks for is said by its signatures, and by what carries it out
        for method, given in vars(thing).items():
            function = getattr(given, "__func__", given)
            if not method.startswith("_") and (inspect.isfunction(function) or isinstance(function, property)):
                yield Public(module=module, name=f"{name}.{method}", thing=function, owner=thing)


def overrides(public: Public) -> bool:
    """Whether it does what a class above has documented, as the methods of the gateway's faults do."""
    method = public.name.rpartition(".")[2]
    return public.owner is not None and any(
        vars(base)[method].__doc__ for base in public.owner.__mro__[1:] if method in vars(base)
    )


@pytest.mark.parametrize("module", ["agentao_trio", *MODULES])
def test_every_public_name_says_what_it_is(module: str) -> None:
    assert (importlib.import_module(module).__doc__ or "").strip()
    assert [each.name for each in public_of(module) if not each.said and not overrides(each)] == []


@pytest.mark.parametrize("module", DOCUMENTED)
def test_whatever_can_wait_says_what_cancelling_it_does(module: str) -> None:
    silent = [
        each.name
        for each in public_of(module)
        if each.can_wait and not each.tells_of_cancellation and each.name not in UNCANCELLED
    ]
    assert silent == []


def test_the_exceptions_are_still_there() -> None:
    names = {each.name for module in DOCUMENTED for each in public_of(module)}
    assert UNCANCELLED.keys() <= names


def test_silence_is_noticed() -> None:
    class Silent:
        async def wait(self) -> None: ...

    class Telling:
        """Cancelling a method changes nothing."""

        async def wait(self) -> None: ...

    silent, telling = (Public(module="", name="wait", thing=each.wait, owner=each) for each in (Silent, Telling))
    assert silent.can_wait
    assert not silent.said
    assert not silent.tells_of_cancellation
    assert telling.tells_of_cancellation
