"""Where a client connects, and as whom, in one value: :func:`sandbox` and :func:`production`.

::

    client = AgenTaoClient(config.sandbox(), trunks=["main"])
"""

from __future__ import annotations

import os
from typing import Any, Literal

import attrs

from agentao_trio.presenters import Credentials, Presenter
from agentao_trio.transport import ClientTLS

__all__ = ["SANDBOX_ENDPOINT", "ClientConfig", "production", "sandbox"]

#: Where ``agentao-trio gateway`` listens unless told otherwise.
SANDBOX_ENDPOINT = "quic://127.0.0.1:9090"


@attrs.frozen(kw_only=True)
class ClientConfig:
    """What :class:`AgenTaoClient` and :func:`serve` take in place of an endpoint; see :func:`open_session` for each."""

    endpoint: str
    tls: ClientTLS = attrs.field(factory=ClientTLS)
    credentials: Credentials | None = attrs.field(default=None, repr=False)
    presenter: Literal["none", "first_stream", "tenant_field"] | Presenter = "none"
    rpc_length: Literal["exclusive", "inclusive"] = "exclusive"

    def options(self) -> dict[str, Any]:
        """Everything but the endpoint, as arguments for :func:`open_session`."""
        return {name: getattr(self, name) for name in ("tls", "credentials", "presenter", "rpc_length")}


def sandbox(*, endpoint: str = SANDBOX_ENDPOINT, ca: str | os.PathLike[str] | bytes = "ca.pem") -> ClientConfig:
    """The gateway that ``agentao-trio gateway`` runs; ``ca`` is the file it has written, or what is in it (PEM)."""
    return ClientConfig(endpoint=endpoint, tls=ClientTLS(ca=ca))


def production(
    endpoint: str,
    *,
    credentials: Credentials,
    presenter: Literal["none", "first_stream", "tenant_field"] | Presenter = "none",
    ca: str | os.PathLike[str] | bytes | None = None,
    rpc_length: Literal["exclusive", "inclusive"] = "exclusive",
) -> ClientConfig:
    """A gateway that wants to know who calls, and whose certificate is always verified.

    ``ca`` is the authority of its certificate where that is not publicly trusted; ``rpc_length`` and the others are as
    for :func:`open_session`. Whether ``credentials`` are any good is found out on connecting. Raises ValueError where
    there are none, such as an empty path.
    """
    if not credentials:
        raise ValueError("production needs credentials: a service account's file, a ServiceAccount or a TokenSource")
    return ClientConfig(
        endpoint=endpoint,
        tls=ClientTLS(ca=ca),
        credentials=credentials,
        presenter=presenter,
        rpc_length=rpc_length,
    )
