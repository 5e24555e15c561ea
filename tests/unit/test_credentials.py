"""Service accounts, their tokens, and the verifier that tells good ones from bad ones."""

from __future__ import annotations

import base64
import json
import time
import traceback
from pathlib import Path
from typing import Any

import attrs
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from agentao_trio.credentials import ENVIRONMENT, Identity, ServiceAccount, TokenSource, TokenVerifier, TrustedKey
from agentao_trio.errors import AuthenticationError
from tests.support.accounts import account, private_key, private_pem, public_pem, serialised, verifier, write_account

NOW = 1_700_000_000.0
PKCS8, PKCS1 = serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL


def body_of(pem: str) -> str:
    """A good part of a key: enough to know it by."""
    return pem.splitlines()[5]


# -- service accounts -----------------------------------------------------------------------------------------------


def test_the_documented_shape(tmp_path: Path) -> None:
    loaded = ServiceAccount.load(write_account(tmp_path / "account.json"))
    assert (loaded.tenant_id, loaded.private_key_id) == ("acme", "key-1")
    assert loaded == account()


def test_the_shape_of_the_python_sdk(tmp_path: Path) -> None:
    path = write_account(
        tmp_path / "account.json", tenant_id=None, private_key_id=None, client_email="acme@example.com"
    )
    loaded = ServiceAccount.load(str(path))
    assert (loaded.tenant_id, loaded.private_key_id) == ("acme@example.com", "default-key")


def test_tenant_id_goes_first_where_both_are_given(tmp_path: Path) -> None:
    path = write_account(tmp_path / "account.json", client_email="somebody@example.com", type="service_account")
    assert ServiceAccount.load(path).tenant_id == "acme"


def test_pkcs1_is_fine_too() -> None:
    pem = serialised(private_key("acme"), PKCS1)
    assert ServiceAccount(tenant_id="acme", private_key=pem, private_key_id="key-1") == account()


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_the_environment_may_name_the_file(name: str, tmp_path: Path) -> None:
    path = write_account(tmp_path / "account.json")
    assert ServiceAccount.from_environment({"HOME": "/", name: str(path)}) == account()


def test_an_environment_that_names_no_file() -> None:
    with pytest.raises(AuthenticationError, match="TELEQUICK_CREDENTIALS nor CLUTCHCALL_CREDENTIALS"):
        ServiceAccount.from_environment({"TELEQUICK_CREDENTIALS": ""})


def test_repr_hides_the_key() -> None:
    one = account()
    for shown in (repr(one), str(one), repr(TokenSource(one)), repr(one.trusted_key())):
        assert "acme" in shown
        assert "rsa" not in shown.lower()
        assert body_of(private_pem("acme")) not in shown
    assert repr(attrs.evolve(one, tenant_id="other")) == "ServiceAccount(tenant_id='other', private_key_id='key-1')"


EC_PEM = serialised(ec.generate_private_key(ec.SECP256R1()))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"tenant_id": None}, "lacks tenant_id; expected that, or client_email"),
        ({"private_key": None}, "lacks private_key"),
        ({"tenant_id": 7}, "tenant_id is a number; expected text"),
        ({"tenant_id": ""}, "tenant_id is not a name"),
        ({"tenant_id": "two\nlines"}, "tenant_id is not a name"),
        ({"tenant_id": "\ud800"}, "tenant_id is not a name"),
        ({"tenant_id": None, "client_email": ["a"]}, "client_email is a list; expected text"),
        ({"private_key_id": {}}, "private_key_id is an object; expected text"),
        ({"private_key_id": True}, "private_key_id is true or false; expected text"),
        ({"private_key": 12}, "private_key is a number; expected the PEM text"),
        ({"private_key": ["a"]}, "private_key is a list; expected the PEM text"),
        ({"private_key": ""}, "private_key is not PEM"),
        ({"private_key": "secret"}, "private_key is not PEM"),
        ({"private_key": EC_PEM}, "private_key is not for RSA"),
        ({"private_key": EC_PEM.replace("A", "B")}, "private_key is damaged"),
        ({"private_key": "-----BEGIN CERTIFICATE-----"}, "private_key is a certificate"),
        ({"private_key": "-----BEGIN PRIVATE KEY-----\ud800"}, "private_key is damaged"),
    ],
)
def test_a_mistake_in_the_file_is_named(fields: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    path = write_account(tmp_path / "account.json", **fields)
    with pytest.raises(AuthenticationError, match="expected") as caught:
        ServiceAccount.load(path)
    assert complaint in str(caught.value)
    assert str(path) in str(caught.value)


def test_keys_that_are_no_use(tmp_path: Path) -> None:
    small = serialised(rsa.generate_private_key(public_exponent=65537, key_size=1024))
    right_key = private_key("acme")
    for pem, complaint in [
        (public_pem("acme"), "is a public key"),
        (small, "1024 bits; expected 2048"),
        (serialised(right_key, PKCS8, password=b"sesame"), "is encrypted"),
        (serialised(right_key, PKCS1, password=b"sesame"), "is encrypted"),
        (private_pem("acme").replace("\n", "\\n"), "backslash"),
        (private_pem("acme")[:400], "damaged"),
    ]:
        path = write_account(tmp_path / "account.json", private_key=pem)
        with pytest.raises(AuthenticationError, match=complaint) as caught:
            ServiceAccount.load(path)
        assert_nothing_leaks(caught.value, pem)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\xfd", "not JSON"),
        (b"\x00", "not JSON"),
        (b'{"tenant_id": "acme",\n "x" 1}', "in line 2, column 6"),
        (b"[]", "is a list; expected a JSON object"),
        (b"null", "is null; expected a JSON object"),
        (b"3.5", "is a number; expected a JSON object"),
        (b'"text"', "is text; expected a JSON object"),
        (b"[" * 50_000, "nested too deeply"),
        (b"1" * 5_000, "impossible number"),
        (b" " * 70_000, "longer than 65536 bytes"),
    ],
)
def test_a_file_that_is_something_else(content: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "account.json"
    path.write_bytes(content)
    with pytest.raises(AuthenticationError, match=complaint):
        ServiceAccount.load(path)


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("missing.json", "'missing.json': No such file"),
        (".", "Is a directory"),
        ("a\0b", "not the name of a file"),
        ("x" * 5_000, "name too long"),
    ],
)
def test_a_path_that_leads_nowhere(path: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AuthenticationError, match=complaint) as caught:
        ServiceAccount.load(path)
    assert len(str(caught.value)) < 500


def test_the_content_in_place_of_the_path_is_not_repeated(tmp_path: Path) -> None:
    content = write_account(tmp_path / "account.json").read_text()
    for path in (content, private_pem("acme"), Path(content)):
        with pytest.raises(AuthenticationError, match="what was given as a path") as caught:
            ServiceAccount.load(path)
        assert_nothing_leaks(caught.value, private_pem("acme"))


def test_broken_json_is_not_quoted(tmp_path: Path) -> None:
    path = write_account(tmp_path / "account.json")
    path.write_text(path.read_text().rstrip("}"))
    with pytest.raises(AuthenticationError, match="not JSON") as caught:
        ServiceAccount.load(path)
    assert_nothing_leaks(caught.value, private_pem("acme"))


def assert_nothing_leaks(error: BaseException, pem: str) -> None:
    """Neither the error nor anything that hangs on to it shows the key."""
    assert error.__context__ is None
    assert error.__cause__ is None
    shown = "".join(traceback.format_exception(error)) + repr(vars(error))
    assert all(line not in shown for line in pem.splitlines() if len(line) > 30)


# -- tokens ---------------------------------------------------------------------------------------------------------


def claims_of(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def test_a_token_says_what_every_description_is_content_with() -> None:
    token = TokenSource(account()).token(NOW + 0.7)
    assert jwt.get_unverified_header(token) == {"alg": "RS256", "kid": "key-1", "typ": "JWT"}
    assert claims_of(token) == {
        "iss": "telequick-sdk",
        "sub": "acme",
        "tenant_id": "acme",
        "iat": NOW,
        "exp": NOW + 3600,
    }


def test_any_other_library_can_check_it() -> None:
    token = TokenSource(account()).token(time.time())
    assert jwt.decode(token, public_pem("acme"), algorithms=["RS256"])["tenant_id"] == "acme"


def test_claims_can_be_set_added_and_left_out() -> None:
    source = TokenSource(
        account("acme@example.com", owner="acme"),
        claims={"iss": "acme@example.com", "sub": "telequick-sdk", "aud": "telequick-api", "tenant_id": None},
        lifetime=300,
    )
    assert claims_of(source.token(NOW)) == {
        "iss": "acme@example.com",
        "sub": "telequick-sdk",
        "aud": "telequick-api",
        "iat": NOW,
        "exp": NOW + 300,
    }


@pytest.mark.parametrize("options", [{"lifetime": 0}, {"lifetime": float("inf")}, {"claims": {"exp": "never"}}])
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="lifetime"):
        TokenSource(account(), **options)


def test_a_token_is_kept_until_shortly_before_it_expires() -> None:
    source = TokenSource(account(), lifetime=3600)
    assert source.expires_at == 0
    first = source.token(NOW)
    assert source.expires_at == NOW + 3600
    assert source.renew_at == NOW + 3300
    assert source.token(NOW + 3299) == first
    second = source.token(NOW + 3300)
    assert second != first
    assert source.token(NOW + 3301) == second


def test_the_margin_of_a_short_token_is_a_quarter() -> None:
    source = TokenSource(account(), lifetime=60)
    first = source.token(NOW)
    assert source.token(NOW + 44) == first
    assert source.token(NOW + 45) != first


def test_a_clock_that_was_set_back_makes_no_token_from_the_future() -> None:
    source = TokenSource(account())
    source.token(NOW)
    assert claims_of(source.token(NOW - 100))["iat"] == NOW - 100


def test_a_refused_token_is_renewed_once_for_all_who_were_refused() -> None:
    source = TokenSource(account())
    refused = source.token(NOW)
    renewed = source.renew(refused, NOW + 10)
    assert renewed != refused
    assert source.renew(refused, NOW + 11) == renewed
    assert source.token(NOW + 12) == renewed


def test_nothing_better_can_be_had_within_the_same_second() -> None:
    source = TokenSource(account())
    refused = source.token(NOW)
    assert source.renew(refused, NOW + 0.5) == refused


# -- the verifier ---------------------------------------------------------------------------------------------------


def signed(claims: dict[str, Any], *, kid: str | None = "key-1", owner: str = "acme", **header: Any) -> str:
    headers = {**header, **({"kid": kid} if kid is not None else {})}
    return jwt.encode({"exp": NOW + 60, **claims}, private_key(owner), algorithm="RS256", headers=headers)


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "telequick-sdk", "sub": "acme", "tenant_id": "acme"},
        {"iss": "telequick-sdk", "tenant_id": "acme"},
        {"iss": "telequick-sdk", "sub": "acme"},
        {"iss": "clutchcall-sdk", "sub": "acme"},
        {"iss": "acme", "sub": "telequick-sdk", "aud": "telequick-api"},
        {"iss": "acme", "sub": "clutchcall-sdk", "aud": ["clutchcall-api", "other"]},
        {"tenant_id": "acme", "iss": "other", "sub": "other"},
        {"tenant_id": "acme", "iat": NOW, "nbf": NOW - 1.5},
    ],
)
def test_every_published_set_of_claims_is_understood(claims: dict[str, Any]) -> None:
    identity = verifier().verify(signed(claims), NOW)
    assert identity == Identity(tenant_id="acme", private_key_id="key-1", expires_at=NOW + 60)


def test_a_token_of_our_own_is_good_until_it_expires() -> None:
    source = TokenSource(account(), lifetime=60)
    token, judge = source.token(NOW), verifier()
    assert judge.verify(token, NOW + 59.9).tenant_id == "acme"
    with pytest.raises(AuthenticationError, match="has expired"):
        judge.verify(token, NOW + 60)
    with pytest.raises(AuthenticationError, match="not valid yet"):
        judge.verify(token, NOW - 1)


def test_leeway_is_for_clocks_that_differ() -> None:
    judge = TokenVerifier([account().trusted_key()], leeway=5)
    token = TokenSource(account(), lifetime=60).token(NOW)
    assert judge.verify(token, NOW - 4.9).expires_at == NOW + 65
    assert judge.verify(token, NOW + 64.9).tenant_id == "acme"


def test_tenants_may_share_the_default_id_of_a_key() -> None:
    accounts = [account(tenant, kid="default-key") for tenant in ("acme", "globex")]
    judge = TokenVerifier([each.trusted_key() for each in accounts])
    for each in accounts:
        assert judge.verify(TokenSource(each).token(NOW), NOW).tenant_id == each.tenant_id


ACME = {"tenant_id": "acme"}


@pytest.mark.parametrize(
    ("token", "complaint"),
    [
        (signed({**ACME, "exp": NOW - 1}), "has expired"),
        (signed({**ACME, "nbf": NOW + 1}), "not valid yet"),
        (signed({**ACME, "iat": NOW + 1}), "not valid yet"),
        (signed({**ACME, "exp": None}), "when it expires"),
        (signed({**ACME, "exp": True}), "exp is not a time"),
        (signed({**ACME, "exp": float("nan")}), "exp is not a time"),
        (signed({**ACME, "nbf": "soon"}), "nbf is not a time"),
        (signed({**ACME, "aud": "another-api"}), "another audience"),
        (signed({**ACME, "aud": [["telequick-api"], 1]}), "another audience"),
        (signed(ACME, kid=None), "which key"),
        (signed(ACME, kid="key-2"), "unknown key, 'key-2'"),
        (signed(ACME, kid="two\nlines" * 20), r"unknown key, 'two\\nlines"),
        (signed({"tenant_id": "globex"}), "signature is not that of its key"),
        (signed(ACME, owner="globex"), "signature is not that of its key"),
        (signed({"tenant_id": "initech"}), "a tenant that does not own its key"),
        (signed({"tenant_id": ["acme"]}), "which tenant"),
        (signed({"tenant_id": ""}), "which tenant"),
        (signed({"iss": "telequick-sdk"}), "which tenant"),
        (signed({"iss": "telequick-sdk", "sub": "initech"}), "a tenant that does not own its key"),
        (signed({}), "which tenant"),
        (signed(ACME, crit=["exp"]), "extensions"),
        (jwt.encode({**ACME, "exp": NOW + 60}, "", algorithm="none", headers={"kid": "key-1"}), "not signed"),
        (jwt.encode({**ACME, "exp": NOW + 60}, "s" * 32, algorithm="HS256", headers={"kid": "key-1"}), "with RS256"),
        (jwt.encode({**ACME}, private_key("acme"), algorithm="RS512", headers={"kid": "key-1"}), "with RS256"),
        ("", "three parts"),
        ("mock_token", "three parts"),
        ("a.b.c.d", "three parts"),
        ("a.b.c", "not base64url"),
        ("é.é.é", "not base64url"),
        ("e30.e30.\udcff", "not base64url"),
        ("e30.e30.AA==", "not base64url"),
        ("bm8.bm8.bm8", "header are not a JSON object"),
        ("e30.W10.bm8", "claims are not a JSON object"),
        ("e30." + base64.urlsafe_b64encode(b"[" * 9_000).decode() + ".AAAA", "claims are not a JSON object"),
        ("." * 20_000, "longer than"),
    ],
    # Keys are made anew in each process, and those of a parallel run have to call their tests alike.
    ids=lambda value: value if " " in value else "token",
)
def test_a_token_is_refused_with_the_reason(token: str, complaint: str) -> None:
    with pytest.raises(AuthenticationError, match=complaint) as caught:
        verifier("acme", "globex").verify(token, NOW)
    assert caught.value.__context__ is None
    assert all(part not in str(caught.value) for part in token.split(".") if len(part) > 4)


def test_a_public_key_is_no_shared_secret() -> None:
    """The classic confusion: HS256 with the public key's text, which everybody knows, as the secret."""
    header = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "key-1"}).encode()).rstrip(b"=").decode()
    _, claims, signature = signed(ACME).split(".")
    with pytest.raises(AuthenticationError, match="RS256"):
        verifier().verify(f"{header}.{claims}.{signature}", NOW)


def test_a_signature_has_one_spelling_only() -> None:
    """342 characters carry four bits more than a signature has; changing those must not go unnoticed."""
    token = signed(ACME)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    sibling = token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]
    with pytest.raises(AuthenticationError, match="base64url"):
        verifier().verify(sibling, NOW)


@pytest.mark.parametrize(
    ("pem", "complaint"),
    [
        (b"\x00", "not PEM"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "damaged"),
        ("-----BEGIN PRIVATE KEY-----", "belongs to the client alone"),
    ],
)
def test_a_public_key_that_is_none(pem: str | bytes, complaint: str) -> None:
    with pytest.raises(AuthenticationError, match=complaint):
        TrustedKey(tenant_id="acme", public_key=pem)


def test_a_trusted_key_from_its_pem() -> None:
    assert (
        TrustedKey(tenant_id="acme", public_key=public_pem("acme"), private_key_id="key-1") == account().trusted_key()
    )
