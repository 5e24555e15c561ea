"""What outsiders rely on: the names of the package, that each says what it is, and that they are typed."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentao_trio

#: Changing this list is changing what programs import: it belongs in the changelog.
NAMES = """
    ActiveCall AgenTaoClient AgentaoError AudioFrame AuthenticationError CallAnswerFailed CallConnectFailed CallEnded
    CallEnding CallError CallOverrun CallState CallStateError CallStatistics ClientTLS Codec CommandError
    CommandRejected CommandTimeout ConnectError ConnectionLost DialplanAction ErrorCode EventRecord EventType
    EventsOverrun InboundRule JsonLines LocalProtocolError ProtocolError RemoteProtocolError ServiceAccount Session
    SessionClosed SessionState SessionStatistics StreamReset TokenSource TransportError TransportSettings Watchdog
    config events mask_phone_numbers open_session serve
""".split()  # noqa: SIM905 - a list of words

#: Modules that programs import from besides.
MODULES = [
    f"agentao_trio.{name}"
    for name in """
        analytics audio broadcast call callstate campaign causes client config convert credentials detect errors events
        gateway history hub live live.redis logs messages metrics playout presenters realtime.bridge realtime.protocol
        realtime.script realtime.session realtime.simulator realtime.tools recording records redaction replay session
        statistics store supervise testing tracing transport watchdog wire conformance.requirements
        conformance.programmes conformance.trace
    """.split()  # noqa: SIM905 - a list of words
]


def test_the_names_of_the_package_are_these() -> None:
    assert sorted(agentao_trio.__all__) == sorted(NAMES)
    for name in NAMES:
        assert getattr(agentao_trio, name) is not None


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(agentao_trio.__file__).with_name("py.typed").is_file()


def defined_in(module: Any) -> Iterator[tuple[str, Any]]:
    """The public classes and functions of a module, and the public methods that these classes define."""
    for name in getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")]):
        thing = getattr(module, name)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)) or not thing.__module__.startswith("agentao_trio"):
            continue
        yield name, thing
        # What a protocol asks for is said by the signatures and by the class.
        if inspect.isclass(thing) and not getattr(thing, "_is_protocol", False):
            for method, function in vars(thing).items():
                if not method.startswith("_") and (inspect.isfunction(function) or isinstance(function, property)):
                    yield f"{name}.{method}", function


@pytest.mark.parametrize("name", ["agentao_trio", *MODULES])
def test_every_public_name_says_what_it_is(name: str) -> None:
    module = importlib.import_module(name)
    silent = [what for what, thing in defined_in(module) if not (inspect.getdoc(thing) or "").strip()]
    assert not silent, f"without a docstring in {name}: {', '.join(silent)}"


def test_a_module_tells_what_it_is_for() -> None:
    assert all((importlib.import_module(name).__doc__ or "").strip() for name in MODULES)
