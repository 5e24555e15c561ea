"""What keeps a connection to a model from opening, in words that say what to do."""

from __future__ import annotations

import errno
import ssl

import pytest
import trio
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.http11 import Response

from agentao_trio.errors import AuthenticationError, ConnectError
from agentao_trio.realtime.connection import _refusal

URL = "wss://model.example/v1/realtime?model=one"


def answered(status: int) -> InvalidStatus:
    return InvalidStatus(Response(status, "", Headers()))


def handshake(cause: BaseException | None) -> trio.BrokenResourceError:
    error = trio.BrokenResourceError()
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (answered(429), "busy", "no quota left"),
        (answered(503), "unavailable", "is not available (HTTP 503)"),
        (answered(404), "status", "check the path and the model's name"),
        (TimeoutError(), "slow", "to answer"),
        (handshake(ssl.SSLCertVerificationError()), "chain", "is not trusted"),
        (handshake(None), "handshake", "does not complete a TLS handshake"),
        (OSError(errno.ECONNREFUSED, "Connection refused"), "port", "cannot be reached: Connection refused"),
        (InvalidHandshake(), "handshake", "does not speak WebSocket"),
    ],
)
def test_each_says_what_it_is(error: BaseException, reason: str, words: str) -> None:
    if isinstance(error.__cause__, ssl.SSLCertVerificationError):
        error.__cause__.verify_message = "self-signed certificate"
    refusal = _refusal(error, URL)
    assert isinstance(refusal, ConnectError)
    assert refusal.reason == reason
    assert words in str(refusal)
    assert "model.example" in str(refusal)
    assert "model=one" not in str(refusal)


@pytest.mark.parametrize(("status", "words"), [(401, "does not accept the key"), (403, "does not allow this with it")])
def test_a_key_that_will_not_do_is_another_matter(status: int, words: str) -> None:
    refusal = _refusal(answered(status), URL)
    assert isinstance(refusal, AuthenticationError)
    assert words in str(refusal)
