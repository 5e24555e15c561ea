"""How commands reach a gateway, and as whom: the options that all of them take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import attrs
from cyclopts import Parameter
from cyclopts.types import ExistingFile

from agentao_trio.cli.identity import PresenterName, service_account
from agentao_trio.cli.running import UsageError
from agentao_trio.config import ClientConfig
from agentao_trio.transport import ClientTLS, parse_endpoint

__all__ = ["NOTHING_GIVEN", "NO_CREDENTIALS", "GatewayAccess", "RpcLength", "Trust", "checked_endpoint"]

RpcLength = Literal["exclusive", "inclusive"]


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Trust:
    """Whom to trust, and who calls."""

    ca: Annotated[ExistingFile | None, Parameter(show_default=False)] = None
    """PEM file with the certificate authority to trust, in place of the system's."""
    server_name: Annotated[str | None, Parameter(show_default=False)] = None
    """The name that the gateway's certificate has to be for, where it is not HOST."""
    credentials: Annotated[Path | None, Parameter(show_default=False)] = None
    """JSON file of the service account to connect as. By default only its tenant's name is told."""
    presenter: PresenterName = "none"
    """Where the token goes: nowhere, alone on the first stream, or in place of the tenant's name."""


#: None of these options.
NO_CREDENTIALS: Trust = Trust()


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class GatewayAccess:
    """Whom to trust and who calls, or not to mind; and how requests are written."""

    trust: Trust = NO_CREDENTIALS
    """Whom to trust, and who calls."""
    insecure_no_verify: Annotated[bool, Parameter(negative="")] = False
    """Accept any certificate. Whoever is on the path can listen and interfere."""
    rpc_length: RpcLength = "exclusive"
    """What the length of a request counts: exclusive is as documented, inclusive as older clients do it."""

    def config(self, endpoint: str, option: str = "--gateway") -> ClientConfig:
        """What a session needs to know of the gateway at ``endpoint``, which was given as ``option``. Raises
        :class:`UsageError`."""
        trust = self.trust
        return ClientConfig(
            endpoint=checked_endpoint(endpoint, option),
            tls=ClientTLS(ca=trust.ca, server_name=trust.server_name, verify=not self.insecure_no_verify),
            credentials=service_account(trust.credentials, trust.presenter),
            presenter=trust.presenter,
            rpc_length=self.rpc_length,
        )


#: None of these options.
NOTHING_GIVEN: GatewayAccess = GatewayAccess()


def checked_endpoint(text: str, option: str) -> str:
    """``text`` if it is quic://HOST:PORT. Raises :class:`UsageError` that names the option otherwise."""
    try:
        parse_endpoint(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}, for example quic://127.0.0.1:9090") from None
    return text
