"""Credentials against whatever a file or a peer may hold: the only way to fail is AuthenticationError."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentao_trio.credentials import ServiceAccount, TokenSource
from agentao_trio.errors import AuthenticationError
from tests.support.accounts import account, private_key, private_pem, verifier

NOW = 1_700_000_000.0
TOKEN = TokenSource(account()).token(NOW)
JUDGE = verifier("acme", "globex")
PEM = private_pem("acme")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
PARTS_OF_A_KEY = st.sampled_from(PEM.splitlines()) | st.integers(0, len(PEM)).map(lambda end: PEM[:end])
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "tenant_id": JSON,
        "client_email": JSON,
        "private_key": JSON | PARTS_OF_A_KEY | st.just(PEM),
        "private_key_id": JSON,
        "anything": JSON,
    },
)


@given(st.binary(max_size=200) | st.text(max_size=200) | JSON.map(json.dumps) | FIELDS.map(json.dumps))
def test_any_content_of_a_file_is_an_account_or_an_authentication_error(content: bytes | str) -> None:
    failure, loaded = None, None
    try:
        loaded = ServiceAccount.from_json(content)
    except AuthenticationError as error:
        failure = error
    if failure is not None:
        assert failure.__context__ is None  # which could hold the content
        assert all(line not in str(failure) for line in PEM.splitlines() if len(line) > 30)
    if loaded is not None:
        assert loaded.tenant_id.isprintable()
        assert loaded.private_key.key_size == 2048


def assert_refused(token: str) -> None:
    with pytest.raises(AuthenticationError):
        JUDGE.verify(token, NOW)


def test_the_token_that_is_mutated_below_is_good() -> None:
    assert JUDGE.verify(TOKEN, NOW).tenant_id == "acme"


@given(st.integers(0, len(TOKEN) - 1), st.characters())
def test_no_other_character_anywhere_is_accepted(position: int, character: str) -> None:
    if character != TOKEN[position]:
        assert_refused(TOKEN[:position] + character + TOKEN[position + 1 :])


@given(st.integers(0, len(TOKEN)), st.integers(0, len(TOKEN)), st.text(max_size=4))
def test_no_cut_and_no_insertion_is_accepted(start: int, end: int, between: str) -> None:
    mutated = TOKEN[:start] + between + TOKEN[end:]
    if mutated != TOKEN:
        assert_refused(mutated)


@given(st.integers(0, 255), st.integers(1, 255))
def test_no_flipped_bit_of_the_signature_is_accepted(position: int, bits: int) -> None:
    head, _, tail = TOKEN.rpartition(".")
    signature = bytearray(base64.urlsafe_b64decode(tail + "=="))
    signature[position] ^= bits
    assert_refused(f"{head}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}")


@given(st.binary(max_size=100).map(lambda data: data.decode("utf-8", "surrogateescape")) | st.text(max_size=100))
def test_noise_is_not_a_token(noise: str) -> None:
    assert_refused(noise)


SEGMENTS = JSON.map(lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode())


@given(SEGMENTS, SEGMENTS, SEGMENTS)
def test_json_in_three_parts_is_not_a_token(header: str, claims: str, signature: str) -> None:
    assert_refused(f"{header}.{claims}.{signature}")


HEADERS = st.dictionaries(st.sampled_from(["kid", "crit", "b64", "jwk", "x5u"]), JSON | st.just("key-1"))
TIMES = JSON | st.integers() | st.floats() | st.floats(NOW - 10, NOW + 10)
NAMES = JSON | st.sampled_from(["acme", "globex", "telequick-sdk"])
CLAIMS = st.fixed_dictionaries(
    {}, optional={"iss": NAMES, "sub": NAMES, "tenant_id": NAMES, "aud": JSON, "exp": TIMES, "nbf": TIMES, "iat": TIMES}
)


@given(HEADERS, CLAIMS)
def test_whatever_a_tenant_signs_it_speaks_for_itself_alone_and_within_its_time(
    header: dict[str, Any], claims: dict[str, Any]
) -> None:
    protected, payload = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "RS256", **header}, claims)
    )
    signer = jwt.get_algorithm_by_name("RS256")
    signature = base64.urlsafe_b64encode(signer.sign(protected + b"." + payload, private_key("acme"))).rstrip(b"=")
    with contextlib.suppress(AuthenticationError):
        identity = JUDGE.verify(b".".join([protected, payload, signature]).decode(), NOW)
        assert identity.tenant_id == "acme"
        assert identity.private_key_id == "key-1"
        assert claims["exp"] > NOW
        assert identity.expires_at > NOW
