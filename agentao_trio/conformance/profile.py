"""The target of a run: where it is, what to trust, whom it can call, what it offers. Read from a TOML file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

import attrs

from agentao_trio.conformance.programmes import Unsupported
from agentao_trio.errors import AgentaoError
from agentao_trio.transport import ClientTLS, Connection, TransportSettings

__all__ = ["ROLES", "Profile", "ProfileError"]

#: What a destination is for.
ROLES = ("answer", "busy", "noanswer", "invalid", "loopback")


class ProfileError(AgentaoError):
    """A profile that cannot be used; the message names the key, and what it should be."""


async def _present_nothing(connection: Connection) -> None:
    """The target asks for no token."""


def _frozen(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(value))


@attrs.frozen(kw_only=True)
class Profile:
    """One target."""

    #: Host and port.
    address: tuple[str, int]
    tls: ClientTLS = attrs.field(factory=ClientTLS)
    transport: TransportSettings = attrs.field(factory=TransportSettings)
    trunk: str = "main"
    rpc_length: str = "exclusive"
    #: Role to number or SIP URI.
    destinations: Mapping[str, str] = attrs.field(factory=dict, converter=_frozen)
    #: What the target has besides: words that programmes ask for.
    capabilities: frozenset[str] = frozenset()
    #: Limits it declares: "frame_bytes", "buffer_seconds" …
    limits: Mapping[str, float] = attrs.field(factory=dict, converter=_frozen)
    #: Shows a token on a new connection.
    present: Callable[[Connection], Awaitable[None]] = _present_nothing

    def destination(self, role: str) -> str:
        """Whom to call for a role. Raises Unsupported where the profile does not say."""
        if role not in self.destinations:
            raise Unsupported(f"the profile names no destination for the role {role!r}")
        return self.destinations[role]
