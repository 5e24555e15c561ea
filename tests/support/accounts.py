"""Service accounts for tests. Keys are made once per run: making one takes a tenth of a second."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from agentao_trio.credentials import ServiceAccount, TokenVerifier

__all__ = ["account", "private_key", "private_pem", "public_pem", "serialised", "verifier", "write_account"]


@functools.cache
def private_key(owner: str) -> rsa.RSAPrivateKey:
    """One key for each ``owner``."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@functools.cache
def private_pem(owner: str) -> str:
    return serialised(private_key(owner))


def serialised(
    key: PrivateKeyTypes,
    form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8,
    password: bytes | None = None,
) -> str:
    """A private key as PEM."""
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, encryption).decode()


def public_pem(owner: str) -> str:
    public = private_key(owner).public_key()
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def account(tenant: str = "acme", *, kid: str = "key-1", owner: str | None = None) -> ServiceAccount:
    """An account whose key is that of ``owner``, by default the tenant."""
    return ServiceAccount(tenant_id=tenant, private_key=private_key(owner or tenant), private_key_id=kid)


def write_account(path: Path, tenant: str = "acme", **fields: object) -> Path:
    """A service-account file as it is published, with ``fields`` in place of or beside its own."""
    content = {"tenant_id": tenant, "private_key_id": "key-1", "private_key": private_pem(tenant), **fields}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    return path


def verifier(*tenants: str, leeway: float = 0.0) -> TokenVerifier:
    """Knows the accounts of these tenants."""
    return TokenVerifier([account(tenant).trusted_key() for tenant in tenants or ("acme",)], leeway=leeway)
