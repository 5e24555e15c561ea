"""Who a program says it is, and whether to believe it (PROTOCOL sections 2.1 to 2.3).

A :class:`ServiceAccount` is a tenant and its private key, a :class:`TokenSource` makes that account's tokens, and a
:class:`TokenVerifier` is the other side: it knows public keys and tells which tenant a token speaks for. Tokens are
JSON Web Tokens (RFC 7519) in compact form, signed with RS256 (RFC 7518 section 3.3); the signing and the checking of
signatures is PyJWT's. Time comes in as an argument, in seconds since the Unix epoch.

No error and no ``repr`` here holds a key or a token, or has one hanging on to it as ``__context__``: that is why
errors are raised behind the ``except`` block that noticed them, and say where something is wrong but never quote it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from agentao_trio.errors import AuthenticationError

__all__ = [
    "AUDIENCES",
    "ENVIRONMENT",
    "ISSUERS",
    "Identity",
    "ServiceAccount",
    "TokenSource",
    "TokenVerifier",
    "TrustedKey",
    "is_token",
]

#: The environment variables that may name a service-account file, in the order in which they are looked at.
ENVIRONMENT = ("TELEQUICK_CREDENTIALS", "CLUTCHCALL_CREDENTIALS")
#: What SDKs call themselves, as ``iss`` or as ``sub``; never a tenant.
ISSUERS = ("telequick-sdk", "clutchcall-sdk")
#: What SDKs that send an ``aud`` at all put there.
AUDIENCES = ("telequick-api", "clutchcall-api")

DEFAULT_KEY_ID = "default-key"
#: Seconds a token is valid for, and for how many of them at most a fresh one takes its place early.
LIFETIME, RENEWAL_MARGIN = 3600.0, 300.0
#: Seconds by which the clocks of client and gateway may differ.
LEEWAY = 5.0

_MAX_FILE = 64 * 1024
_MAX_TOKEN = 16 * 1024
_MIN_KEY_BITS = 2048
#: Times beyond this one are this one; floats are exact up to here.
_LATEST = float(2**53)
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_PEM_LABEL = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}

Pem: TypeAlias = str | bytes


# -- what all of them need ------------------------------------------------------------------------------------------


def _kind(value: object) -> str:
    """What a JSON value is, without showing it."""
    return _KINDS.get(type(value), "a number")


def _shown(text: str) -> str:
    """A name somebody else chose, fit for one line of a log."""
    return ascii(text if len(text) <= 64 else text[:64] + "…")


def _check_name(_: object, attribute: attrs.Attribute[str], value: object) -> None:
    if not isinstance(value, str):
        raise AuthenticationError(f"{attribute.name} is {_kind(value)}; expected text")
    if not value or not value.isprintable() or "PRIVATE KEY" in value:
        raise AuthenticationError(f"{attribute.name} is not a name; expected one line of text that is not empty")


def _label(pem: object, name: str, right: str) -> str:
    """The label of the first PEM block; raises for what is not PEM at all."""
    if not isinstance(pem, str | bytes):
        raise AuthenticationError(f"{name} is {_kind(pem)}; expected {right}")
    text = pem.decode("latin-1") if isinstance(pem, bytes) else pem
    match = _PEM_LABEL.search(text)
    if match is None:
        raise AuthenticationError(f"{name} is not PEM; expected {right}, beginning with '-----BEGIN'")
    if "\\n" in text:
        raise AuthenticationError(
            f"{name} has its line breaks written as a backslash and an n; expected {right} with real line breaks"
        )
    return match[1]


def _check_size(key: RSAPrivateKey | RSAPublicKey, name: str) -> None:
    if key.key_size < _MIN_KEY_BITS:
        raise AuthenticationError(
            f"{name} is an RSA key of {key.key_size} bits; expected {_MIN_KEY_BITS} bits or more (RFC 7518 section 3.3)"
        )


def _read_private_key(given: Pem | RSAPrivateKey) -> RSAPrivateKey:
    right = "the PEM text of an unencrypted RSA private key (PKCS#8)"
    key = given if isinstance(given, RSAPrivateKey) else _load_private_key(given, right)
    _check_size(key, "private_key")
    return key


def _load_private_key(pem: Pem, right: str) -> RSAPrivateKey:
    label = _label(pem, "private_key", right)
    key, problem = None, "damaged, or of a kind that is not known here"
    if "PUBLIC" in label or "CERTIFICATE" in label:
        problem = f"a {label.lower()}"
    elif "ENCRYPTED" in label:
        problem = "encrypted"
    else:
        try:
            key = serialization.load_pem_private_key(pem.encode() if isinstance(pem, str) else pem, password=None)
        except TypeError:  # encrypted the older way, which the label does not tell
            problem = "encrypted"
        except (ValueError, UnsupportedAlgorithm):
            pass
    if key is None:
        raise AuthenticationError(f"private_key is {problem}; expected {right}")
    if not isinstance(key, RSAPrivateKey):
        raise AuthenticationError(f"private_key is not for RSA; expected {right}")
    return key


def _read_public_key(given: Pem | RSAPublicKey) -> RSAPublicKey:
    key = given if isinstance(given, RSAPublicKey) else _load_public_key(given)
    _check_size(key, "public_key")
    return key


def _load_public_key(pem: Pem) -> RSAPublicKey:
    right = "the PEM text of an RSA public key"
    if "PRIVATE" in _label(pem, "public_key", right):
        raise AuthenticationError(f"public_key is a private key, which belongs to the client alone; expected {right}")
    key = None
    with contextlib.suppress(ValueError, UnsupportedAlgorithm):
        key = serialization.load_pem_public_key(pem.encode() if isinstance(pem, str) else pem)
    if not isinstance(key, RSAPublicKey):
        raise AuthenticationError(f"public_key is damaged or not for RSA; expected {right}")
    return key


def _numbers(key: RSAPrivateKey | RSAPublicKey) -> object:
    """What makes two keys the same key."""
    return (key.public_key() if isinstance(key, RSAPrivateKey) else key).public_numbers()


def _decode_json(data: Pem) -> tuple[Any, str]:
    """The value, and an empty string or what is wrong."""
    try:
        return json.loads(data), ""
    except RecursionError:
        return None, "it is nested too deeply"
    except json.JSONDecodeError as error:
        return None, f"{error.msg} in line {error.lineno}, column {error.colno}"
    except UnicodeDecodeError:
        return None, "it is not UTF-8"
    except ValueError:
        return None, "it holds an impossible number"


# -- the client's side ----------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class TrustedKey:
    """One public key and the tenant that owns it: what a gateway is told of a service account.

    ``public_key`` may be given as PEM. Raises :class:`AuthenticationError` for a key that cannot be used.
    """

    tenant_id: str = attrs.field(validator=_check_name)
    public_key: RSAPublicKey = attrs.field(converter=_read_public_key, repr=False, eq=_numbers)
    private_key_id: str = attrs.field(default=DEFAULT_KEY_ID, validator=_check_name)


@attrs.frozen(kw_only=True)
class ServiceAccount:
    """A tenant, its private key, and the name of that key (PROTOCOL section 2.1).

    ``private_key`` may be given as PEM. Raises :class:`AuthenticationError` for a key or a name that cannot be used.
    Neither ``repr`` nor an error ever shows the key.
    """

    tenant_id: str = attrs.field(validator=_check_name)
    private_key: RSAPrivateKey = attrs.field(converter=_read_private_key, repr=False, eq=_numbers)
    private_key_id: str = attrs.field(default=DEFAULT_KEY_ID, validator=_check_name)

    @classmethod
    def from_json(cls, text: Pem) -> ServiceAccount:
        """Read the content of a service-account file, of either published shape.

        ``private_key`` and one of ``tenant_id`` and ``client_email`` must be there, ``tenant_id`` going first;
        ``private_key_id`` may be. Raises :class:`AuthenticationError` naming what is missing or wrong.
        """
        fields, problem = _decode_json(text)
        if problem:
            raise AuthenticationError(f"the service account is not JSON: {problem}")
        if not isinstance(fields, dict):
            raise AuthenticationError(f"the service account is {_kind(fields)}; expected a JSON object")
        tenant = next((name for name in ("tenant_id", "client_email") if name in fields), None)
        if tenant is None:
            raise AuthenticationError("the service account lacks tenant_id; expected that, or client_email")
        if "private_key" not in fields:
            raise AuthenticationError("the service account lacks private_key; expected PEM text")
        if tenant == "client_email" and not isinstance(fields[tenant], str):
            raise AuthenticationError(f"client_email is {_kind(fields[tenant])}; expected text")
        return cls(
            tenant_id=fields[tenant],
            private_key=fields["private_key"],
            private_key_id=fields.get("private_key_id", DEFAULT_KEY_ID),
        )

    @classmethod
    def load(cls, path: str | Path) -> ServiceAccount:
        """Read a service-account file. Raises :class:`AuthenticationError` naming the file and what is wrong."""
        name = _path_shown(path)
        data, problem = b"", ""
        try:
            with open(path, "rb") as file:
                data = file.read(_MAX_FILE + 1)
        except OSError as error:
            problem = error.strerror or type(error).__name__
        except ValueError:
            problem = "this is not the name of a file"
        if problem:
            raise AuthenticationError(f"{name}: {problem}; expected the path of a service account's JSON file")
        if len(data) > _MAX_FILE:
            raise AuthenticationError(f"{name}: longer than {_MAX_FILE} bytes; expected a service account's JSON file")
        try:
            return cls.from_json(data)
        except AuthenticationError as error:
            problem = str(error)
        raise AuthenticationError(f"{name}: {problem}")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> ServiceAccount:
        """Read the file that TELEQUICK_CREDENTIALS or, failing that, CLUTCHCALL_CREDENTIALS in ``environ`` names.

        Pass ``os.environ``: the environment is only looked at when asked for. Raises :class:`AuthenticationError`.
        """
        path = next((environ[name] for name in ENVIRONMENT if environ.get(name)), None)
        if path is None:
            raise AuthenticationError(f"neither {ENVIRONMENT[0]} nor {ENVIRONMENT[1]} names a service-account file")
        return cls.load(path)

    def trusted_key(self) -> TrustedKey:
        """The half of this account that a gateway has to know."""
        return TrustedKey(
            tenant_id=self.tenant_id, private_key_id=self.private_key_id, public_key=self.private_key.public_key()
        )


def _path_shown(path: str | Path) -> str:
    """A path for an error message, unless somebody passed the content of the file in its place."""
    text = str(path)
    if "PRIVATE KEY" in text or "{" in text or "\n" in text:
        return "what was given as a path"
    return repr(text[:300])


class TokenSource:
    """The tokens of one account: signed when needed, kept until shortly before they expire.

    By default the claims are those every description of the gateway is content with (PROTOCOL section 2.2): ``iss``
    telequick-sdk, ``sub`` and ``tenant_id`` the tenant, ``iat``, ``exp``, and no ``aud``. ``claims`` overrides them and
    adds to them; a claim given as None is left out. ``lifetime`` is in seconds. A token is replaced when a quarter of
    its lifetime is left, or five minutes where that is less.
    """

    def __init__(
        self,
        account: ServiceAccount,
        *,
        claims: Mapping[str, str | list[str] | None] | None = None,
        lifetime: float = LIFETIME,
    ) -> None:
        if not 1 <= lifetime < math.inf:
            raise ValueError(f"lifetime is {lifetime}; expected seconds, 1 or more")
        if claims is not None and not claims.keys().isdisjoint(("iat", "exp")):
            raise ValueError("iat and exp follow from the time and the lifetime; they cannot be set")
        self.account = account
        tenant = account.tenant_id
        wanted = {"iss": ISSUERS[0], "sub": tenant, "tenant_id": tenant, **(claims or {})}
        self._claims = {name: value for name, value in wanted.items() if value is not None}
        self._lifetime = int(lifetime)
        self._margin = min(lifetime / 4, RENEWAL_MARGIN)
        self._token = ""
        self._issued_at = self._expires_at = 0

    def __repr__(self) -> str:
        return f"<TokenSource of {self.account!r}>"

    @property
    def expires_at(self) -> float:
        """When the present token expires; 0 while there has been none."""
        return self._expires_at

    @property
    def renew_at(self) -> float:
        """From when on :meth:`token` gives another one."""
        return self._expires_at - self._margin

    def token(self, now: float) -> str:
        """A token that is good for a while yet."""
        # A clock that was set back would have others take the present token for one from the future.
        if not self._issued_at <= now < self.renew_at:
            self._sign(now)
        return self._token

    def renew(self, rejected: str, now: float) -> str:
        """Another token than ``rejected``, which the gateway did not take.

        However many tasks were refused the same token, one new one is made. It is ``rejected`` itself when that was
        signed in this very second: there is nothing better to be had.
        """
        if self._token == rejected:
            self._sign(now)
        return self.token(now)

    def _sign(self, now: float) -> None:
        self._issued_at = int(now)
        self._expires_at = self._issued_at + self._lifetime
        self._token = jwt.encode(
            {**self._claims, "iat": self._issued_at, "exp": self._expires_at},
            self.account.private_key,
            algorithm="RS256",
            headers={"kid": self.account.private_key_id},
        )


# -- the gateway's side ---------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Identity:
    """What a verified token says: whose it is, which key vouches for that, and until when (Unix seconds)."""

    tenant_id: str
    private_key_id: str
    expires_at: float


def is_token(text: str) -> bool:
    """Whether this is meant to be a token, good or bad, where it could be a plain name as well."""
    return text.count(".") == 2 and (text.startswith("ey") or len(text) > 64)


class TokenVerifier:
    """Tells which tenant a token speaks for, knowing the tenants' public keys.

    ``audiences`` are those a token may name in ``aud``; one without is fine as well. ``leeway`` is how many seconds the
    clocks may differ. Several tenants may have a key of the same id, since there is a default id.
    """

    def __init__(
        self, keys: Iterable[TrustedKey], *, audiences: Collection[str] = AUDIENCES, leeway: float = LEEWAY
    ) -> None:
        self._keys = {(key.private_key_id, key.tenant_id): key.public_key for key in keys}
        self._ids = {key_id for key_id, _ in self._keys}
        self._audiences = frozenset(audiences)
        self._leeway = leeway
        self._signatures = jwt.PyJWS(algorithms=["RS256"])

    def __repr__(self) -> str:
        return f"<TokenVerifier with the keys of {len({tenant for _, tenant in self._keys})} tenants>"

    def verify(self, token: str, now: float) -> Identity:
        """The identity that ``token`` proves at ``now``.

        Raises :class:`AuthenticationError` saying why it proves none: garbled, unsigned or signed otherwise than with
        RS256, by an unknown key or another tenant's, expired, not yet valid, or meant for somebody else.
        """
        header, claims = self._take_apart(token)
        if header.get("alg") != "RS256":
            raise AuthenticationError("the token is not signed with RS256")
        if "crit" in header:
            raise AuthenticationError("the token's header demands extensions that are not known here")
        key_id = header.get("kid")
        if not isinstance(key_id, str):
            raise AuthenticationError("the token does not say which key it was signed with (kid)")
        if key_id not in self._ids:
            raise AuthenticationError(f"the token was signed with an unknown key, {_shown(key_id)}")
        tenant = _tenant_of(claims)
        key = self._keys.get((key_id, tenant))
        if key is None:
            raise AuthenticationError(f"the token speaks for a tenant that does not own its key, {_shown(key_id)}")
        try:
            self._signatures.decode(token, key, algorithms=["RS256"])
        except jwt.PyJWTError:
            key = None
        if key is None:
            raise AuthenticationError("the token's signature is not that of its key")
        expires_at = self._check_times(claims, now)
        self._check_audience(claims.get("aud"))
        return Identity(tenant_id=tenant, private_key_id=key_id, expires_at=expires_at)

    def _take_apart(self, token: str) -> tuple[dict[str, Any], dict[str, Any]]:
        if len(token) > _MAX_TOKEN:
            raise AuthenticationError(f"the token is longer than {_MAX_TOKEN} characters")
        segments = token.split(".")
        if len(segments) != 3:
            raise AuthenticationError("this is not a token: it has not got three parts between dots")
        if not segments[2]:
            raise AuthenticationError("the token is not signed")
        header, claims, _ = (_decode_segment(segment) for segment in segments)
        return _decode_object(header, "header"), _decode_object(claims, "claims")

    def _check_times(self, claims: Mapping[str, Any], now: float) -> float:
        expires_at, not_before, issued_at = (_time(claims, name) for name in ("exp", "nbf", "iat"))
        if expires_at is None:
            raise AuthenticationError("the token does not say when it expires (exp)")
        # Numbers of any size: they are compared but never added to.
        if expires_at <= now - self._leeway:
            raise AuthenticationError("the token has expired")
        if any(time is not None and time > now + self._leeway for time in (not_before, issued_at)):
            raise AuthenticationError("the token is not valid yet")
        return min(expires_at, _LATEST) + self._leeway

    def _check_audience(self, audience: object) -> None:
        named = audience if isinstance(audience, list) else [audience]
        if audience is not None and not any(isinstance(each, str) and each in self._audiences for each in named):
            raise AuthenticationError("the token is meant for another audience (aud)")


def _decode_segment(segment: str) -> bytes:
    """Base64url without padding, in the one way it can be written: a changed character never decodes to the same."""
    if _SEGMENT.fullmatch(segment) and len(segment) % 4 != 1:
        data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
        if base64.urlsafe_b64encode(data).rstrip(b"=") == segment.encode():
            return data
    raise AuthenticationError("the token is garbled: a part of it is not base64url")


def _decode_object(data: bytes, part: str) -> dict[str, Any]:
    value, problem = _decode_json(data)
    if problem or not isinstance(value, dict):
        raise AuthenticationError(f"the token is garbled: its {part} are not a JSON object")
    return value


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    time = claims.get(name)
    if time is None:
        return None
    if isinstance(time, bool) or not isinstance(time, int | float) or time != time:  # NaN
        raise AuthenticationError(f"the token's {name} is not a time")
    return time


def _tenant_of(claims: Mapping[str, Any]) -> str:
    """Both published sets of claims: ``tenant_id``; or ``sub`` of an SDK's token; or ``iss`` (PROTOCOL section 2.3)."""
    if "tenant_id" in claims:
        tenant = claims["tenant_id"]
    elif claims.get("iss") in ISSUERS:
        tenant = claims.get("sub")
    else:
        tenant = claims.get("iss")
    if not isinstance(tenant, str) or not tenant:
        raise AuthenticationError("the token does not say which tenant it speaks for")
    return tenant
