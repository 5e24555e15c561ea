"""What history does not keep: words that were said, keys that were sent and telephone numbers, by a policy."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
#: Whose errors are told in a program's own words, which may be the caller's.
_QUOTING = frozenset({"tool", "handler"})
#: What a request has done with a call, and where it says which keys are sent: ``4:rfc2833:200``.
_ACTIONS = {
    "action": "app_args",
    "default_app": "default_app_args",
    "template_default_app": "template_default_app_args",
}
#: Fields that hold a telephone number or a SIP URI, wherever they are, or a sentence that may name one.
_NUMBERS = frozenset({"caller", "callee", "to", "call_from", "template_to", "template_call_from", "error", "message"})
_NUMBERS |= frozenset(_ACTIONS.values())


@attrs.frozen(kw_only=True)
class Redaction:
    """A policy. By default everything is kept."""

    #: "drop" replaces what was said, what tools were given and gave back, the errors of tools and handlers, and keys
    #: that were sent (:meth:`ActiveCall.send_dtmf`), by how many characters it was.
    transcripts: Literal["keep", "drop"] = "keep"
    #: "mask" leaves the last two digits of a number, and the host of a SIP URI.
    numbers: Literal["keep", "mask"] = "keep"

    def of(self, record: Record) -> Record:
        """The record as it may be kept: itself, where nothing in it is to go."""
        data = record.data
        if self.transcripts == "drop":
            data = _without_words(record.kind, data)
        if self.numbers == "mask":
            data = _masked(data)
        return record if data is record.data else attrs.evolve(record, data=data)


def _without_words(kind: RecordKind, data: Mapping[str, Any]) -> Mapping[str, Any]:
    fields = _WORDS.get(kind)
    if kind is RecordKind.ERROR and data.get("source") in _QUOTING:
        fields = frozenset({"message"})
    if fields is not None:
        return {name: _struck(value) if name in fields else value for name, value in data.items()}
    if kind is RecordKind.COMMAND and isinstance(request := data.get("request"), dict):
        for action, arguments in _ACTIONS.items():
            if request.get(action) == "SEND_DTMF" and isinstance(keys := request.get(arguments), str):
                keys, colon, rest = keys.partition(":")
                request = {**request, arguments: f"{_struck(keys)}{colon}{rest}"}
        if request is not data["request"]:
            return {**data, "request": request}
    return data


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
