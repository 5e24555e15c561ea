"""Who a command says it is, and whom the gateway believes. Errors name the option, and never show a key."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from agentao_trio.cli.running import UsageError
from agentao_trio.credentials import DEFAULT_KEY_ID, ServiceAccount, TrustedKey
from agentao_trio.errors import AuthenticationError
from agentao_trio.legible import quoted

__all__ = ["PresenterName", "service_account", "trusted_keys"]

PresenterName = Literal["none", "first_stream", "tenant_field"]

#: Bytes of a key; more than any has.
LARGEST_KEY = 64 * 1024


def service_account(path: Path | None, presenter: PresenterName) -> ServiceAccount | None:
    """The account in ``--credentials``. Raises :class:`UsageError`, also for a ``--presenter`` without one."""
    if path is None:
        if presenter != "none":
            raise UsageError(f"--presenter {presenter} needs --credentials: there is nothing to present")
        return None
    try:
        return ServiceAccount.load(path)
    except AuthenticationError as error:
        raise UsageError(f"--credentials: {error}") from None


def trusted_keys(texts: Iterable[str]) -> tuple[TrustedKey, ...]:
    """What ``--trust`` names: service accounts' files, or public keys as TENANT=FILE or TENANT/KEY_ID=FILE.

    Raises :class:`UsageError`.
    """
    return tuple(_trusted_key(text) for text in texts)


def _trusted_key(text: str) -> TrustedKey:
    owner, equals, file = text.rpartition("=")
    try:
        if not equals or Path(text).is_file():
            return ServiceAccount.load(text).trusted_key()
        tenant, slash, key_id = owner.partition("/")
        return TrustedKey(
            tenant_id=tenant,
            private_key_id=key_id if slash else DEFAULT_KEY_ID,
            public_key=_read(Path(file)),
        )
    except (AuthenticationError, OSError, ValueError) as error:
        # Somebody may have given a key in place of its file's name.
        given = "" if "\n" in text or "PRIVATE KEY" in text else f" {quoted(text)}"
        raise UsageError(f"--trust{given}: {getattr(error, 'strerror', None) or error}") from None


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LARGEST_KEY)
