"""The target of a run: where it is, what to trust, whom it can call, what it offers. Read from a TOML file.

::

    [target]
    address = "quic://gateway.example:9090"
    ca = "ca.pem"                       # in place of the system's store
    trunk = "main"
    credentials = "account.json"        # never in a report
    presenter = "first_stream"          # none, first_stream or tenant_field
    second_credentials = "other.json"   # another tenant's
    capabilities = ["token", "second_tenant"]

    [destinations]                      # who is called for which role
    answer = "+15550100001"
    busy = "+15550100017"

    [limits]                            # what the target declares
    frame_bytes = 1048576
"""

from __future__ import annotations

import contextlib
import time
import tomllib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import trio

from agentao_trio.conformance.programmes import Unsupported
from agentao_trio.credentials import ServiceAccount, TokenSource
from agentao_trio.errors import AgentaoError, AuthenticationError, StreamReset
from agentao_trio.transport import ClientTLS, Connection, TransportSettings, parse_endpoint

__all__ = ["CAPABILITIES", "ROLES", "Profile", "ProfileError", "load_profile", "token_maker", "with_tokens"]

#: What a destination is for.
ROLES = ("answer", "busy", "noanswer", "invalid", "loopback")
#: What a target may have besides, as programmes ask for it.
CAPABILITIES = ("token", "second_tenant", "audio_apart", "own_certificate", "hold", "dtmf", "recording")
_TARGET = ("address", "ca", "server_name", "insecure_no_verify", "trunk", "rpc_length")
_CREDENTIALS = ("credentials", "second_credentials")
_PRESENTERS = ("none", "first_stream", "tenant_field")


class ProfileError(AgentaoError):
    """A profile that cannot be used; the message names the key, and what it should be."""


async def first_stream(connection: Connection, token: str) -> None:
    """The token alone on the first stream, as this package's own gateway takes it (PROTOCOL section 2.3)."""
    stream = await connection.open_bidi()
    with contextlib.suppress(StreamReset):  # what comes of it is for a check to see
        await stream.send_all(token.encode())
        stream.finish()
        with trio.move_on_after(2):
            while await stream.receive_some():
                pass


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
    #: Shows a token on a new connection; and any text in its place.
    present: Callable[[Connection], Awaitable[None]] = _present_nothing
    present_text: Callable[[Connection, str], Awaitable[None]] = first_stream
    #: What the time is, in Unix seconds.
    clock: Callable[[], float] = time.time
    #: Whether requests bear the token where the tenant's name is to be.
    token_in_requests: bool = False
    #: Makes a token of a tenant (1 or 2) with some lifetime and age, in seconds; None where there is no key to.
    make_token: Callable[..., str] | None = attrs.field(default=None, repr=False)

    def token(self, *, tenant: int = 1, lifetime: float = 3600.0, age: float = 0.0) -> str:
        """A token. Raises Unsupported where the profile holds no key."""
        if self.make_token is None:
            raise Unsupported("the profile has no credentials to make tokens with")
        return self.make_token(tenant=tenant, lifetime=lifetime, age=age)

    def destination(self, role: str) -> str:
        """Whom to call for a role. Raises Unsupported where the profile does not say."""
        if role not in self.destinations:
            raise Unsupported(f"the profile names no destination for the role {role!r}")
        return self.destinations[role]


def token_maker(accounts: Sequence[ServiceAccount], now: Callable[[], float]) -> Callable[..., str]:
    """What :attr:`Profile.make_token` is, for tenants numbered from 1; ``now`` is in Unix seconds."""

    def make(*, tenant: int, lifetime: float, age: float) -> str:
        if tenant > len(accounts):
            raise Unsupported(f"the profile has no credentials of tenant number {tenant}")
        return TokenSource(accounts[tenant - 1], lifetime=lifetime).token(now() - age)

    return make


def with_tokens(profile: Profile, make: Callable[..., str], presenter: str) -> Profile:
    """A profile whose connections show a token of the first tenant."""

    async def present(connection: Connection) -> None:
        await first_stream(connection, profile.token())

    profile = attrs.evolve(profile, make_token=make, token_in_requests=presenter == "tenant_field")
    return attrs.evolve(profile, present=present) if presenter == "first_stream" else profile


def load_profile(path: Path | None, *, address: str | None = None) -> Profile:
    """Read a profile; ``address``, as ``quic://HOST:PORT``, goes before the file's.

    Raises :class:`ProfileError` that names the key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8")) if path is not None else {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProfileError(f"{path} cannot be read: {error}") from None
    _only(content, ("target", "destinations", "limits"), "the profile")
    target = _table(content, "target")
    _only(target, (*_TARGET, *_CREDENTIALS, "presenter", "capabilities"), "[target]")
    destinations, limits = _table(content, "destinations"), _table(content, "limits")
    _only(destinations, ROLES, "[destinations]")
    where = address or target.get("address")
    if not isinstance(where, str):
        raise ProfileError("no gateway is named: give its address, quic://HOST:PORT, or address in [target]")
    try:
        host_and_port = parse_endpoint(where)
    except ValueError as error:
        raise ProfileError(str(error)) from None
    capabilities = target.get("capabilities", [])
    if not isinstance(capabilities, list):
        raise ProfileError("capabilities in [target] is a list of words")
    _only(dict.fromkeys(capabilities), CAPABILITIES, "capabilities")
    ca = target.get("ca")
    near = path.parent if path is not None else Path()
    profile = Profile(
        address=host_and_port,
        tls=ClientTLS(
            ca=Path(near, ca) if ca else None,
            server_name=target.get("server_name"),
            verify=not target.get("insecure_no_verify", False),
        ),
        trunk=target.get("trunk", "main"),
        rpc_length=_one_of(target, "rpc_length", ("exclusive", "inclusive"), "exclusive"),
        destinations=destinations,
        capabilities=frozenset(capabilities),
        limits=limits,
    )
    presenter = _one_of(target, "presenter", _PRESENTERS, "none")
    accounts = [_account(target, key, near) for key in _CREDENTIALS if key in target]
    if not accounts:
        if presenter != "none":
            raise ProfileError(f"presenter is {presenter!r}, but there are no credentials to present")
        return profile
    return with_tokens(profile, token_maker(accounts, time.time), presenter)


def _account(target: Mapping[str, Any], key: str, near: Path) -> ServiceAccount:
    try:
        return ServiceAccount.load(Path(near, target[key]))
    except (AuthenticationError, TypeError) as error:
        raise ProfileError(f"{key} in [target]: {error}") from None


def _table(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = content.get(name, {})
    if not isinstance(table, dict):
        raise ProfileError(f"{name} has to be a table: [{name}]")
    return table


def _only(table: Mapping[str, Any], known: Collection[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise ProfileError(f"{where} knows no {key!r}; expected {', '.join(known)}")


def _one_of(table: Mapping[str, Any], key: str, choices: Collection[str], default: str) -> str:
    value = table.get(key, default)
    if value not in choices:
        raise ProfileError(f"{key} is {value!r}; expected {' or '.join(choices)}")
    return str(value)
