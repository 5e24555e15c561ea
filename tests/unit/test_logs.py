"""What reaches a log: one line, legible, without secrets, and with the call it is about."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentao_trio.legible import legible
from agentao_trio.logs import JsonLines, mask_phone_numbers, redacted

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZ2VudCJ9.c2lnbmF0dXJl"
KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG\n-----END PRIVATE KEY-----"

log = logging.getLogger("agentao_trio.session")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    log.addHandler(handler)
    try:
        yield stream
    finally:
        log.removeHandler(handler)


def test_a_peers_text_cannot_forge_a_line(lines: io.StringIO) -> None:
    log.warning("call %s: %s", "sid\n", "\x1b[2J\r\nERROR all is lost \u202egnp.exe \udcff")
    assert lines.getvalue() == ("call sid\\n: \\x1b[2J\\r\\nERROR all is lost \\u202egnp.exe \\udcff\n")


def test_a_traceback_cannot_either(lines: io.StringIO) -> None:
    try:
        raise RuntimeError(f"\nERROR fake \x1b[31m {TOKEN}")
    except RuntimeError:
        log.exception("call %s failed", "c")
    text = lines.getvalue()
    assert "\x1b" not in text
    assert TOKEN not in text
    assert all(line.startswith(("call c failed", "  | ")) for line in text.splitlines())


def test_long_texts_are_cut_and_say_so(lines: io.StringIO) -> None:
    log.warning("%s and %s", "x" * 1_000_000, "y" * 1_000_000)
    assert len(lines.getvalue()) < 1000
    assert "characters more" in lines.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        f"Authorization: Bearer {TOKEN}",
        "authorization: Bearer abc123def",
        '{"access_token": "s3cr3t-abc123def"}',
        "password=abc123def",
        "api_key: abc123def",
        KEY,
        "private_key = abc123def",
    ],
)
def test_secrets_are_struck_out(text: str, lines: io.StringIO) -> None:
    log.warning("the gateway said %s", text)
    log.warning("%s", RuntimeError(text))
    log.warning(text)
    for secret in (TOKEN, "abc123def", "MIIEvQ"):
        assert secret not in lines.getvalue()
    assert lines.getvalue().count("[redacted]") >= 3


def test_ordinary_words_are_not(lines: io.StringIO) -> None:
    text = "the token could not be renewed: no answer from gateway.test:9090 within 10 s"
    assert redacted(text) == text


def test_phone_numbers_are_masked_on_request(lines: io.StringIO) -> None:
    log.warning("to %s and %s", "+15550100001", "sip:alice@pbx.test")
    mask_phone_numbers()
    try:
        log.warning("to %s and %s", "+15550100001", "sip:alice@pbx.test")
    finally:
        mask_phone_numbers(False)
    assert lines.getvalue() == "to +15550100001 and sip:alice@pbx.test\nto …01 and sip:…@pbx.test\n"


def test_structured_lines_name_the_call() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    log.addHandler(handler)
    try:
        log.warning("call %s: %s", "c-1", "left")
        log.warning("no call here: %d", 7)
        try:
            raise RuntimeError("boom")
        except RuntimeError:
            log.exception("call %s: failed", "c-2")
        log.warning("left", extra={"call_sid": "c-3"})
    finally:
        log.removeHandler(handler)
    first, second, third, fourth = map(json.loads, stream.getvalue().splitlines())
    assert (first["call_sid"], first["message"], first["level"]) == ("c-1", "call c-1: left", "WARNING")
    assert "call_sid" not in second
    assert second["message"] == "no call here: 7"
    assert "RuntimeError: boom" in third["traceback"]
    assert fourth["call_sid"] == "c-3"


@given(st.text(), st.integers(1, 50))
def test_what_is_shown_is_printable_and_short(text: str, limit: int) -> None:
    shown = legible(text, limit)
    assert shown.isprintable()
    assert len(shown) <= 10 * limit + 40
    if text.isprintable() and len(text) <= limit:
        assert shown == text
