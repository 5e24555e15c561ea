"""What this package writes to logs: on one line each, without secrets, and with the call it is about.

Theory of operation
-------------------
Everything is logged under ``agentao_trio`` with the standard library. A filter sits on each of our loggers, so that it
sees every line whatever handlers a program has. It writes the message out, and while it does so

* escapes control characters and cuts what a peer made too long (:func:`agentao_trio.legible.legible`),
* replaces what looks like a token, a key or a password,
* masks telephone numbers, where :func:`mask_phone_numbers` has asked for it, and
* puts ``call_sid`` on the record: lines about one call begin with ``call <sid>``.

A traceback is treated in the same way, line by line, and set off so that no line of it can pass for one of ours.
:class:`JsonLines` is a formatter for programs that collect structured logs.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from types import TracebackType
from typing import Any

from agentao_trio.legible import legible

__all__ = ["LOGGERS", "JsonLines", "mask_phone_numbers", "redacted"]

#: The names under which this package logs.
LOGGERS = tuple(
    f"agentao_trio.{name}"
    for name in (
        "session",
        "call",
        "client",
        "campaign",
        "gateway",
        "recording",
        "quic",
        "watchdog",
        "store",
        "live",
        "realtime",
        "fleet",
    )
)

#: Characters of one value, of one line, and lines of a traceback that are shown.
_VALUE, _LINE, _TRACEBACK_LINES = 300, 2000, 100
#: What is looked at for secrets before it is cut.
_SEARCHED = 16_384

_SECRETS = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"\beyJ[\w-]{4,}(?:\.[\w-]*){0,4}"),  # a JSON object in base64url: a token, or its beginning
    re.compile(r"(?i)(?<=bearer )\s*\S+"),
    re.compile(
        r"(?i)(?<![a-z])(?:authorization|(?:[a-z]+[_-])?token|secret|passw(?:or)?d|api[_-]?key|private[_-]?key)"
        r"[\"']?\s*[:=]\s*[\"']?(?!bearer )(?P<secret>[^\s\"',;}]+)"
    ),
)
_PHONE_NUMBER = re.compile(r"\+\d{3,13}(?=\d{2}(?!\d))|(?<=sip:)[^@\s>;]+(?=@)|(?<=sips:)[^@\s>;]+(?=@)")


def redacted(text: str) -> str:
    """``text`` without what looks like a secret."""
    for pattern in _SECRETS:
        text = pattern.sub(_struck_out, text)
    return text


def _struck_out(match: re.Match[str]) -> str:
    secret = match.groupdict().get("secret")
    return "[redacted]" if secret is None else match.group().removesuffix(secret) + "[redacted]"


class _Guard(logging.Filter):
    """The filter on our loggers. Never keeps a record back."""

    masks_numbers = False

    def filter(self, record: logging.LogRecord) -> bool:
        arguments = record.args if isinstance(record.args, tuple) else (record.args,)
        if not hasattr(record, "call_sid"):
            is_about_a_call = str(record.msg).startswith(("call %s", "call %r")) and arguments
            record.call_sid = legible(str(arguments[0]), 64) if is_about_a_call else None
        try:
            text = str(record.msg)
            if record.args:
                text %= tuple(map(self._value, arguments))
        except (TypeError, ValueError):
            text = f"{record.msg} {arguments!r}"
        record.msg, record.args = self._clean(text, _LINE), ()
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = self._traceback(record.exc_info[1])
        return True

    def _value(self, value: object) -> object:
        if isinstance(value, str | BaseException):
            return self._clean(str(value), _VALUE)
        return value

    def _clean(self, text: str, limit: int) -> str:
        surplus = max(0, len(text) - _SEARCHED)
        text = redacted(text[:_SEARCHED])
        if self.masks_numbers:
            text = _PHONE_NUMBER.sub("…", text)
        return legible(text, limit) + (f" ({surplus} characters more)" if surplus else "")

    def _traceback(self, error: BaseException) -> str:
        lines = "".join(traceback.format_exception(error)).splitlines()
        dropped = lines[:-_TRACEBACK_LINES]
        shown = [f"({len(dropped)} lines left out)"] * bool(dropped) + lines[-_TRACEBACK_LINES:]
        return "\n".join(f"  | {self._clean(line, _LINE)}" for line in shown)


_guard = _Guard()
for _name in LOGGERS:
    logging.getLogger(_name).addFilter(_guard)


def mask_phone_numbers(masked: bool = True) -> None:
    """Show only the last two digits of ``+15550100001``, and only the host of ``sip:`` URIs, in all our logs."""
    _guard.masks_numbers = masked


class JsonLines(logging.Formatter):
    """One JSON object per line: time (Unix seconds), level, logger, message, call_sid where there is one, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": round(record.created, 6),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if getattr(record, "call_sid", None):
            line["call_sid"] = record.__dict__["call_sid"]
        if record.exc_text:
            line["traceback"] = record.exc_text
        elif record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)

    def formatException(  # noqa: N802 - the base class names it
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        return "" if ei[1] is None else _guard._traceback(ei[1])
