"""The notation of vectors.json and streams.json, turned into bytes and messages (see ``about`` in each file)."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from agentao_trio.messages import MESSAGES, Message

HERE = Path(__file__).parent

VECTORS: dict[str, Any] = json.loads((HERE / "vectors.json").read_text(encoding="utf-8"))
STREAMS: dict[str, Any] = json.loads((HERE / "streams.json").read_text(encoding="utf-8"))

#: The schema as the vector file has it: message name -> [[field name, type], ...].
FIELDS: dict[str, list[tuple[str, str]]] = {
    name: [(field, kind) for field, kind in schema["fields"]] for name, schema in VECTORS["messages"].items()
}


def octets(entry: dict[str, Any], what: str) -> bytes:
    """``<what>_hex``, or ``<what>_parts`` where some parts are one hex string repeated."""
    if f"{what}_hex" in entry:
        return bytes.fromhex(entry[f"{what}_hex"])
    parts = entry[f"{what}_parts"]
    return b"".join(
        bytes.fromhex(part) if isinstance(part, str) else bytes.fromhex(part["repeat"][0]) * part["repeat"][1]
        for part in parts
    )


def message(name: str, fields: dict[str, Any]) -> Message:
    """The message as a program would construct it: every field by keyword."""
    assert set(fields) == {field for field, _ in FIELDS[name]}
    return MESSAGES[name](**{field: _value(fields[field], kind) for field, kind in FIELDS[name]})


def _value(value: Any, kind: str) -> Any:
    if kind.startswith("vec:"):
        return [message(kind.removeprefix("vec:"), element) for element in value]
    if isinstance(value, dict):
        ((notation, content),) = value.items()
        if notation == "int":
            return int(content)
        if notation == "f64":
            return struct.unpack(">d", bytes.fromhex(content))[0]
        raw = bytes.fromhex(content) if notation == "hex" else content[0].encode() * content[1]
        return raw if kind == "bytes" else raw.decode("utf-8", "surrogateescape")
    return value.encode() if kind == "bytes" else value
