"""What history does not keep: words that were said, and telephone numbers, where a policy says so."""

from __future__ import annotations

import re
from typing import Any, Literal

import attrs

from agentao_trio.records import Record, RecordKind

__all__ = ["Redaction"]

#: Digits of E.164, all but the last two; the user of a SIP URI.
_NUMBER = re.compile(r"\+?\d{3,13}(?=\d{2}(?!\d))|(?<=sip:)[^@\s>;]+(?=@)|(?<=sips:)[^@\s>;]+(?=@)")
#: What holds words of the conversation, by kind of record.
_WORDS = {
    RecordKind.TRANSCRIPT: frozenset({"text", "delta"}),
    RecordKind.TOOL: frozenset({"arguments", "output", "error"}),
}
#: Fields that hold a telephone number or a SIP URI, wherever they are.
_NUMBERS = frozenset({"caller", "callee", "to", "call_from", "template_to", "template_call_from", "app_args"})


@attrs.frozen(kw_only=True)
class Redaction:
    """A policy. By default everything is kept."""

    #: "drop" replaces what was said, and what tools were given and gave back, by how many characters it was.
    transcripts: Literal["keep", "drop"] = "keep"
    #: "mask" leaves the last two digits of a number, and the host of a SIP URI.
    numbers: Literal["keep", "mask"] = "keep"

    def of(self, record: Record) -> Record:
        """The record as it may be kept: itself, where nothing in it is to go."""
        data = record.data
        if self.transcripts == "drop" and (fields := _WORDS.get(record.kind)) is not None:
            data = {name: _struck(value) if name in fields else value for name, value in data.items()}
        if self.numbers == "mask":
            data = _masked(data)
        return record if data is record.data else attrs.evolve(record, data=data)


def _struck(value: Any) -> str:
    return f"[{len(str(value))} characters]"


def _masked(value: Any) -> Any:
    return {
        name: _NUMBER.sub("…", item)
        if name in _NUMBERS and isinstance(item, str)
        else _masked(item)
        if isinstance(item, dict)
        else item
        for name, item in value.items()
    }
