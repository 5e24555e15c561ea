"""What is said in the calls, on the terminal."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from agentao_trio.cli.screen import Screen
from agentao_trio.records import Record, RecordKind

__all__ = ["Transcript"]

#: Calls whose names are remembered.
_CALLS = 10_000
_STYLES = {"user": "cyan", "assistant": "green"}


class Transcript:
    """A reader of a hub: one line for each thing that people want to see."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._names: OrderedDict[str, str] = OrderedDict()

    def read(self, record: Record) -> None:
        """Show one record, if it is worth a line."""
        data = record.data
        match record.kind:
            case RecordKind.CALL:
                self._call(record)
            case RecordKind.TRANSCRIPT if data.get("phase") == "final" and data.get("text"):
                who = {"user": "caller", "assistant": "agent"}.get(str(data.get("role")), str(data.get("role")))
                cut = " (interrupted)" if data.get("interrupted") else ""
                self._say(record, f"{who:>7}: {data.get('text')}{cut}", _STYLES.get(str(data.get("role"))))
            case RecordKind.TOOL if data.get("phase") != "started":
                self._say(record, f"   tool: {data.get('name')} {_tool(data)}", "magenta")
            case RecordKind.ERROR:
                self._say(record, f"  error: {data.get('message')}", "red")
            case RecordKind.SESSION if data.get("state") == "reconnecting":
                self._screen.note("the connection to the gateway is lost; reconnecting")
            case _:
                pass

    def _call(self, record: Record) -> None:
        data = record.data
        if data.get("phase") == "began":
            other = data.get("caller") if data.get("direction") == "inbound" else data.get("callee")
            self._names[record.call_sid] = str(other or record.call_sid)[-4:]
            if len(self._names) > _CALLS:
                self._names.popitem(last=False)
            self._say(record, f"{data.get('direction')} call, {other or 'a withheld number'}", None)
        elif data.get("phase") == "renamed":
            before = str(data.get("call_sid_before"))
            self._names[record.call_sid] = self._names.pop(before, before[-4:])
        elif data.get("phase") == "over":
            how = data.get("how")
            self._say(record, "left to another worker" if how == "released" else f"over ({how})", None)

    def _say(self, record: Record, text: str, style: str | None) -> None:
        name = self._names.get(record.call_sid, record.call_sid[-4:])
        self._screen.say(f"{name:>4}  {text}", style=style)


def _tool(data: Any) -> str:
    match data.get("phase"):
        case "requested":
            return str(data.get("arguments"))
        case "done":
            return f"→ {data.get('output')}"
    return f"{data.get('phase')} {data.get('error', '')}".strip()
