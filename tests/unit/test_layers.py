"""Who may import whom: one table, held against the imports of every module's syntax tree.

A module that is not in the table fails, so that a new file has to say where it belongs before it is used.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

PACKAGE = "agentao_trio"
ROOT = Path(__file__).parents[2] / PACKAGE

#: Never, anywhere in the package: it is written for trio.
OTHER_LOOPS = frozenset({"asyncio", "concurrent", "multiprocessing", "sched", "selectors", "socketserver"})
#: Standard library that waits, looks at the clock, rolls dice or opens sockets: nothing for a sans-IO module.
IMPURE = OTHER_LOOPS | {"os", "queue", "random", "secrets", "select", "signal", "socket", "ssl", "subprocess"}
IMPURE |= {"threading", "time", "uuid"}

#: What everything below the I/O line may use.
CORE: tuple[str, ...] = (
    "legible",
    "errors",
    "envelope",
    "wire",
    "messages",
    "callstate",
    "dialplan",
    "audio",
    "audio_frames",
    "detect",
    "causes",
    "close_codes",
    "events",
)
CORE += (
    "records",
    "summaries",
    "redaction",
    "analytics",
    "convert",
    "wav",
    "tracks",
    "credentials",
    "campaign_numbers",
    "campaign_plan",
)
EVENTS = ("errors", "envelope", "wire", "messages", "callstate", "causes", "events")

#: The client, from the bottom up: each may use those before it. A call comes before the session and never sees it.
CLIENT: tuple[str, ...] = (
    "watchdog",
    "statistics",
    "broadcast",
    "hub",
    "chronicle",
    "handlers",
    "backlog",
    "media",
    "playout",
    "recording",
    "call_audio",
    "call_control",
    "call",
)
CLIENT += ("supervise", "inbound", "routing", "rpc", "presenters", "link", "commands", "unowned", "options", "session")
CLIENT += ("config", "client", "campaign")
#: The embedded gateway's behaviour, all of it sans-IO: each part may use those before it.
PARTS: tuple[str, ...] = (
    "settings",
    "timers",
    "sound",
    "farends",
    "subscriptions",
    "leg",
    "calls",
    "effects",
    "silence",
    "fault",
    "fault_events",
    "fault_audio",
    "commands",
    "fault_requests",
    "fault_paths",
    "fault_more",
    "fault_rest",
    "fuzz",
    "faults",
    "exchange",
)
PARTS += ("admission", "control", "inbound", "bulk", "model")
#: The conformance kit below the I/O line: each may use those before it.
CONFORMANCE: tuple[str, ...] = ("programmes", "limits", "profile", "kit", "runner", "targets", "rehearsal")
CHECKS = (
    "events",
    "figures",
    "subscriptions",
    "replay",
    "rpc",
    "framing",
    "serialization",
    "audio",
    "robustness",
    "authentication",
)
CONFORMANCE += (*(f"checks.{section}" for section in CHECKS), "checks")
GATEWAY = tuple(f"gateway.{part}" for part in PARTS)
#: What bridges a call and a model, from the bottom up.
BRIDGE: tuple[str, ...] = ("speech", "tool_calls", "dialogue", "responses", "bridge")
#: What the events of a Realtime model are made of.
EVENT_VALUES = ("realtime.names", "realtime.items", "realtime.configuration")


@attrs.frozen
class Layer:
    """One row: the modules of this package and the packages from elsewhere that a module may import."""

    ours: frozenset[str]
    theirs: frozenset[str]
    pure: bool


def pure(*ours: str, theirs: str = "attrs") -> Layer:
    return Layer(frozenset(ours), frozenset(theirs.split()), pure=True)


def waits(*ours: str, theirs: str = "trio attrs") -> Layer:
    return Layer(frozenset(ours), frozenset(theirs.split()), pure=False)


LAYERS = {
    # -- sans-IO ----------------------------------------------------------------------------------------------------
    "legible": pure(theirs=""),
    "logs": pure("legible", theirs=""),
    "errors": pure(theirs="trio"),  # for the base classes of its exceptions
    "shapes": pure(theirs=""),
    "envelope": pure("errors", "shapes", theirs=""),
    "wire": pure("envelope", "errors", theirs=""),
    "messages": pure("wire", "envelope", "errors"),
    "audio": pure("wire", "errors", theirs="attrs audioop"),
    "audio_frames": pure("messages", "wire"),
    "convert": pure("audio", "errors", theirs="attrs numpy soxr"),
    "wav": waits("audio", theirs="attrs"),  # it blocks, and is for a thread
    "tracks": pure("audio", "convert", theirs=""),
    "detect": pure("audio"),
    "callstate": pure("messages", "errors"),
    "records": pure(),
    "dialplan": pure("messages", "legible", "errors"),
    "causes": pure(theirs=""),
    "close_codes": pure(theirs=""),
    "plots": pure(theirs=""),
    "campaign_numbers": pure("dialplan", "errors"),
    "campaign_plan": pure("campaign_numbers", "causes", "messages"),
    "credentials": pure("errors", theirs="attrs jwt cryptography"),
    "events": pure("callstate", "causes", "messages", "wire", "errors"),
    "summaries": pure("records"),
    "redaction": pure("records"),
    "analytics": pure("causes", "records", "summaries"),
    "live.packets": pure(),
    "live.fold": pure(theirs=""),
    "live.calls": pure("live.fold", theirs=""),
    "live.feed": pure("records", "live.calls"),
    "live.outbox": pure(),
    "realtime": pure(theirs="msgspec websockets"),
    "realtime.names": pure(theirs="attrs msgspec"),
    "realtime.items": pure(),
    "realtime.configuration": pure("errors", "realtime.names", "realtime.items", theirs="attrs msgspec"),
    "realtime.client_events": pure("errors", *EVENT_VALUES),
    "realtime.response_events": pure(*EVENT_VALUES),
    "realtime.server_events": pure(*EVENT_VALUES, "realtime.response_events"),
    "realtime.protocol": pure(
        *("errors", "realtime", *EVENT_VALUES, "realtime.client_events", "realtime.server_events"),
        theirs="attrs msgspec",
    ),
    "realtime.accumulators": pure("realtime.protocol"),
    "realtime.repeats": pure("realtime.protocol"),
    "realtime.conversation": pure("realtime.accumulators", "realtime.protocol", "realtime.repeats"),
    "realtime.sequence": pure("realtime.protocol"),
    "realtime.failures": pure("errors", "realtime.protocol"),
    "realtime.journal": pure(
        *("analytics", "errors", "realtime.conversation", "realtime.protocol"), theirs="attrs msgspec"
    ),
    **{f"gateway.{part}": pure(*CORE, *GATEWAY[:index], theirs="attrs") for index, part in enumerate(PARTS)},
    "realtime.playout": pure("audio"),
    "realtime.tools": pure(theirs="attrs msgspec"),
    "realtime.transcripts": pure(),
    "realtime.turns": pure("realtime.playout"),
    "conformance": pure(theirs="hypothesis"),
    "conformance.strategies": pure(*CORE, theirs="attrs hypothesis"),
    "conformance.trace": pure(*CORE),
    "conformance.requirements": pure(*CORE, "conformance.trace"),
    "conformance.catalogue": pure(theirs=""),
    "conformance.report": waits(
        *CORE,
        *(f"conformance.{each}" for each in ("catalogue", "trace", "requirements", "runner")),
        theirs="attrs rich",
    ),
    # -- the I/O line: trio only below it ---------------------------------------------------------------------------
    "_alarm": waits(theirs="trio"),
    "pacing": waits("_alarm"),
    "place": waits(),
    "services": waits(),
    "_engine_congestion": waits(theirs="aioquic"),
    "_engine_stock": waits("_engine_congestion", theirs="aioquic cryptography"),
    "_engine_incoming": waits("_engine_stock", theirs="aioquic"),
    "_engine_outgoing": waits(theirs="aioquic"),
    "_engine_mtu": waits(theirs="aioquic"),
    "_engine_streams": waits(
        "_engine_congestion", "_engine_incoming", "_engine_mtu", "_engine_outgoing", theirs="aioquic"
    ),
    "_engine": waits("_engine_mtu", "_engine_stock", "_engine_streams", theirs="attrs aioquic cryptography"),
    "_datagrams": waits("errors"),
    "_streams": waits("errors", "place", "_engine"),
    "_connection": waits("errors", "legible", "place", "_datagrams", "_streams", "_engine"),
    "_listener": waits("errors", "services", "_connection", "_datagrams", "_engine"),
    "transport": waits(
        *("errors", "legible", "services", "_connection", "_datagrams", "_engine", "_listener", "_streams"),
        theirs="trio attrs aioquic",
    ),
    **{
        part: waits(*CORE, "pacing", "place", "services", "transport", *CLIENT[:index])
        for index, part in enumerate(CLIENT)
    },
    "broadcast": waits(theirs="trio attrs outcome"),  # what trio's tasks are woken with
    "tracing": waits("call", "errors", "messages", "session", theirs="trio opentelemetry"),
    "metrics": waits("statistics", "session", theirs="trio attrs prometheus_client"),
    # History: what is written, read and replayed. It sees a session's records and never the session.
    "store": waits(*CORE, "hub", "services"),
    "history": waits(*CORE, "store", theirs="attrs"),
    "replay": waits(*CORE, "hub", "chronicle"),
    "history_report": pure("analytics", "causes", "plots", "summaries", theirs="attrs"),
    "fleet_link": waits("errors", "services", theirs="trio anyio coredis"),
    "fleet_records": waits("records", "fleet_link", theirs="trio coredis"),
    "fleet_numbers": waits("campaign_numbers", "fleet_link", theirs="trio attrs coredis"),
    "fleet": waits(*CORE, "hub", "services", "fleet_link", "fleet_numbers", "fleet_records"),
    "live.client": waits("live.outbox", "live.packets", theirs="trio attrs wsproto"),
    "live.desk": waits("live.calls", "live.client", "live.feed", "live.outbox", "live.packets", theirs="msgspec"),
    "live.websocket": waits("services", "live.client", "live.outbox", "live.packets", theirs="trio h11 wsproto"),
    "live.http": waits("live.client", "live.packets", "live.websocket", theirs="trio attrs h11 msgspec wsproto"),
    "live.server": waits(
        *("handlers", "hub", "records", "services"),
        *("live.client", "live.desk", "live.feed", "live.http"),
        theirs="trio attrs h11 msgspec wsproto",
    ),
    "live": waits("live.client", "live.server", theirs="h11 msgspec wsproto"),
    "live.redis": waits(
        *("hub", "records", "services", "live.feed", "live.server"), theirs="trio anyio attrs coredis msgspec"
    ),
    "realtime.connection": waits("errors", "legible", theirs="trio websockets"),
    "realtime.router": waits(
        "errors", "broadcast", "handlers", "realtime.names", "realtime.server_events", theirs="trio attrs"
    ),
    "realtime.hearing": waits("broadcast", "realtime.router", "realtime.sequence", theirs=""),
    "realtime.outbox": waits(),
    "realtime.writing": waits("realtime.connection"),
    "realtime.replay": pure("realtime.conversation", "realtime.protocol", theirs=""),
    "realtime.asking": waits("errors", "realtime", "realtime.protocol", "realtime.failures"),
    "realtime.echo": pure("errors", "realtime.protocol", theirs=""),
    "realtime.session_statistics": waits("realtime.router", theirs="attrs"),
    "realtime.session": waits(
        *("errors", "broadcast", "services", "realtime.protocol", "realtime.conversation", "realtime.connection"),
        *("realtime.router", "realtime.outbox", "realtime.replay", "realtime.asking"),
        *("realtime.session_statistics", "realtime.echo", "realtime.failures", "realtime.journal", "realtime.writing"),
        *("realtime.hearing", "realtime.repeats", "realtime.sequence"),
        theirs="trio attrs msgspec",
    ),
    **{
        f"realtime.{part}": waits(
            *(*CORE, "call", "handlers", "legible", "media", "services"),
            *("realtime.protocol", "realtime.failures", "realtime.sequence", "realtime.session"),
            *(f"realtime.{lower}" for lower in ("playout", "tools", "transcripts", "turns", *BRIDGE[:index])),
        )
        for index, part in enumerate(BRIDGE)
    },
    # The scripted model shares no code with the client but the transport, and spells its events by itself.
    "realtime.vad": pure("audio"),
    "realtime.script": pure(),
    "realtime.model_settings": pure(theirs=""),
    "realtime.model_reply": pure("audio", "wav", "realtime.script"),
    "realtime.model": pure(
        "audio", "realtime.script", "realtime.vad", "realtime.model_settings", "realtime.model_reply"
    ),
    "realtime.simulator": waits(
        *("errors", "services", "realtime.names", "realtime.script", "realtime.model", "realtime.connection"),
        theirs="trio attrs websockets",
    ),
    # A gateway and its judge share no code with the client, whose leniency could hide a gateway's fault.
    "gateway.downlink": waits(*CORE, *GATEWAY, "transport"),
    "gateway.meddling": waits(*CORE, *GATEWAY, "gateway.downlink", "transport"),
    "gateway.server": waits(
        *CORE,
        *GATEWAY,
        "gateway.downlink",
        "gateway.meddling",
        "services",
        "transport",
        "pacing",
        theirs="trio attrs trustme",
    ),
    "gateway": waits(*GATEWAY, "gateway.server"),
    # The judge of gateways: programmes drive over transport alone, requirements look at traces alone.
    **{
        f"conformance.{part}": waits(
            *CORE,
            *("transport", "pacing", "gateway", "testing", "testing.memory_network"),
            *(f"conformance.{each}" for each in CONFORMANCE[:index]),
            *(f"conformance.{each}" for each in ("catalogue", "trace", "requirements", "strategies")),
            theirs="trio attrs hypothesis rich jwt cryptography",
        )
        for index, part in enumerate(CONFORMANCE)
    },
    "testing.memory_network": waits("transport"),
    "testing.caller": waits(*CORE, "gateway", "gateway.calls", "gateway.sound"),
    "testing.simulated": waits("gateway", "testing.caller", "testing.memory_network"),
    "testing": waits("testing.caller", "testing.memory_network", "testing.simulated"),
    "testing.plugin": waits("gateway", "testing", theirs="trio pytest pytest_trio"),
}
#: The top of the building: the public names (the package itself is ``""``) and the command line, which uses everything.
TOP = frozenset({"", "__main__", "cli"})
#: What ``import agentao_trio`` leaves alone until somebody asks for it.
NOT_FLAT = ("cli", "conformance", "gateway", "live", "realtime", "testing")


def find_modules() -> dict[str, Path]:
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = find_modules()


def imports(module: str, path: Path) -> Iterator[str]:
    """The full name of everything that ``module`` imports, at any depth, relative names made absolute."""
    package = [PACKAGE, *filter(None, module.split("."))]
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                # "from agentao_trio import wire" names a module, "from agentao_trio.wire import Frame" a name in one.
                inner = f"{source}.{alias.name}".removeprefix(f"{PACKAGE}.")
                yield f"{PACKAGE}.{inner}" if inner in LAYERS else source


def trespasses(module: str, path: Path) -> Iterator[str]:
    layer = LAYERS[module]
    for name in imports(module, path):
        top = name.partition(".")[0]
        if top == PACKAGE:
            allowed = name.removeprefix(PACKAGE).removeprefix(".") in layer.ours
        elif top in layer.theirs:
            allowed = True
        else:
            allowed = top in sys.stdlib_module_names and top not in (IMPURE if layer.pure else OTHER_LOOPS)
        if not allowed:
            yield name


def test_every_module_has_its_place_in_the_table() -> None:
    assert {module for module in set(MODULES) - set(LAYERS) if module.partition(".")[0] not in TOP} == set()


@pytest.mark.parametrize("module", sorted(set(MODULES) & set(LAYERS)))
def test_a_module_imports_only_what_its_row_allows(module: str) -> None:
    assert list(trespasses(module, MODULES[module])) == []


@pytest.mark.parametrize(
    ("package", "rooms"),
    [
        ("aioquic", {"transport"} | {name for name in MODULES if name.startswith("_engine")}),
        ("hypothesis", {name for name in MODULES if name.partition(".")[0] == "conformance"}),
        ("audioop", {"audio"}),
        ("pytest", {"testing.plugin"}),
        ("pytest_trio", {"testing.plugin"}),
        ("asyncio", set()),
        ("anyio", {"fleet_link", "live.redis"}),
    ],
)
def test_some_packages_are_confined(package: str, rooms: set[str]) -> None:
    users = {
        module
        for module, path in MODULES.items()
        if any(name.partition(".")[0] == package for name in imports(module, path))
    }
    assert users <= rooms


def test_the_flat_package_leaves_the_wings_alone() -> None:
    entered = {name.removeprefix(f"{PACKAGE}.").partition(".")[0] for name in imports("", MODULES[""])}
    assert entered.isdisjoint(NOT_FLAT)


def test_the_table_has_no_cycle() -> None:
    unread = {name: set(layer.ours) for name, layer in LAYERS.items()}
    while unread:
        ready = {name for name, needs in unread.items() if needs.isdisjoint(unread)}
        assert ready, f"these wait for each other: {sorted(unread)}"
        for name in ready:
            del unread[name]


@pytest.mark.parametrize(
    ("source", "trespass"),
    [
        ("import struct", []),
        ("from agentao_trio.errors import LocalProtocolError", []),
        ("from . import errors", []),
        ("from .errors import LocalProtocolError", []),
        ("def late():\n    import trio", ["trio"]),
        ("import time", ["time"]),
        ("import attrs, struct", ["attrs"]),
        ("from agentao_trio import messages", ["agentao_trio.messages"]),
        ("from agentao_trio import __version__", ["agentao_trio"]),
        ("from .session import Session", ["agentao_trio.session"]),
        ("from .gateway.model import Tone", ["agentao_trio.gateway.model"]),
        ("import agentao_trio.gateway.server as g", ["agentao_trio.gateway.server"]),
    ],
)
def test_the_reader_of_imports_knows_every_spelling(source: str, trespass: list[str], tmp_path: Path) -> None:
    wire = tmp_path / "wire.py"
    wire.write_text(source)
    assert list(trespasses("wire", wire)) == trespass
