"""Where a session's token goes: nowhere, onto a stream of its own, or into its requests (PROTOCOL section 2.3).

Theory of operation
-------------------
No gateway is known to look for a token in any particular place, and no published client sends one, so that the place is
the program's choice, and **by default no token is sent at all**: then nothing but the tenant's name goes out, and that
proves nothing.

``"first_stream"``, or any function like it, is run on every new connection before the session subscribes, and again
whenever the token is about to expire, for as long as the session lasts. ``"tenant_field"`` puts the token where a
request has its tenant's name. When the gateway answers ERR_UNAUTHORIZED (7), the token is renewed once, however many
commands were refused it, and the command is sent once more. That goes for *every* command, also Originate: that answer
says that nothing was carried out. A stream that was reset says so much less clearly; after that only commands are sent
again that do no harm when carried out twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import attrs
import trio

from agentao_trio import messages
from agentao_trio.close_codes import CloseCode
from agentao_trio.credentials import ServiceAccount, TokenSource
from agentao_trio.errors import AuthenticationError, CommandRejected, ConnectionLost, StreamReset, TransportError
from agentao_trio.messages import ErrorCode, MethodId
from agentao_trio.rpc import exchange
from agentao_trio.transport import Connection

__all__ = ["Authentication", "Credentials", "Presenter", "first_stream"]

log: logging.Logger = logging.getLogger("agentao_trio.session")

Credentials: TypeAlias = str | Path | ServiceAccount | TokenSource
#: Shows the token on a connection, and raises :class:`AuthenticationError` when it is refused.
Presenter: TypeAlias = Callable[[Connection, str], Awaitable[None]]

#: Seconds that a gateway may take to say what it thinks of a token. One that says nothing is taken to be content.
CONFIRM_SECONDS = 1.0
#: A machine that was suspended, or had its clock set, is noticed when its clock is so many seconds ahead of trio's; it
#: is looked at no less often than that.
_JUMP = 60.0

#: The slots for the tenant's name. ``"tenant_field"`` puts the token there.
_TENANT_FIELDS: Mapping[type, str] = MappingProxyType(
    {
        messages.OriginateRequest: "tenant_id",
        messages.BulkRequest: "template_tenant_id",
        messages.AllocateWtRequest: "tenant_id",
        messages.SuperviseSubscribeRequest: "tenant_id",
    }
)
#: Commands that do no harm when they are carried out twice, and whose reply has no other place for a refusal.
_HARMLESS = frozenset(
    {
        MethodId.GetIncomingCalls,
        MethodId.GetActiveBuckets,
        MethodId.GetBucketCalls,
        MethodId.SetInboundRouting,
        MethodId.Barge,
    }
)


async def first_stream(connection: Connection, token: str) -> None:
    """Send the token alone on a bidirectional stream and wait until the gateway ends its half of it.

    A convention between this package's client and gateway; nobody else is known to follow it. Raises
    :class:`AuthenticationError` when the gateway resets the stream, or closes the connection with code 2, and
    :class:`ConnectionLost`. Cancelled, the token may or may not have been taken.
    """
    stream = await connection.open_bidi()
    try:
        stream.write(token.encode())
        stream.finish()
        with trio.move_on_after(CONFIRM_SECONDS):
            while await stream.receive_some():
                pass  # whatever it has to say beside the end
    except StreamReset as reset:
        raise AuthenticationError(
            f"the gateway refused the token (it reset the stream with code {reset.code}); check that it knows this "
            "service account, and that the clocks agree"
        ) from None
    except ConnectionLost as lost:
        if lost.code != CloseCode.UNAUTHORIZED:
            raise
        raise AuthenticationError("the gateway refused the token and closed the connection") from None
    finally:
        stream.stop()  # the other half is left alone: the token may still be on its way


class Authentication:
    """Who one session says it is, and how it proves it.

    ``wall_clock`` gives Unix seconds. Raises :class:`AuthenticationError` for a service account that cannot be used,
    ValueError for a presenter that does not exist or has nothing to present, and TypeError for other credentials.
    """

    def __init__(
        self,
        credentials: Credentials | None,
        presenter: Literal["none", "first_stream", "tenant_field"] | Presenter,
        *,
        tenant_id: str = "",
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        if isinstance(credentials, str | Path):
            credentials = ServiceAccount.load(credentials)
        if isinstance(credentials, ServiceAccount):
            credentials = TokenSource(credentials)
        if not isinstance(credentials, TokenSource | None):
            raise TypeError(f"credentials are a {type(credentials).__name__}; expected a path or a ServiceAccount")
        if not callable(presenter) and presenter not in ("none", "first_stream", "tenant_field"):
            raise ValueError(
                f"presenter is {presenter!r}; expected 'none', 'first_stream', 'tenant_field' or a function"
            )
        if credentials is None and presenter != "none":
            raise ValueError("there is a presenter but no credentials to present")
        #: What goes into the wire's tenant fields; gateways take it for information only (PROTOCOL section 16.23).
        self.tenant_id: str = tenant_id or (credentials.account.tenant_id if credentials is not None else "")
        self._tokens = credentials if presenter != "none" else None
        self._present = presenter if callable(presenter) else first_stream if presenter == "first_stream" else None
        self._wall_clock = wall_clock
        self._epoch = 0.0
        self._shown = ""  # the token that the gateway has seen last
        self._renewing = trio.Lock()

    def __repr__(self) -> str:
        state = "nothing to present" if self._tokens is None else repr(self._tokens)
        return f"<Authentication of tenant {self.tenant_id or '(none)'}, {state}>"

    def _now(self) -> float:
        """Unix time. It advances with trio's clock, so that virtual time ages tokens too."""
        epoch = self._wall_clock() - trio.current_time()
        if epoch - self._epoch > _JUMP:
            self._epoch = epoch
        return self._epoch + trio.current_time()

    # -- on a connection ------------------------------------------------------------------------------------------

    async def connected(self, connection: Connection) -> None:
        """Present the token on a new connection, and another one if that is refused.

        Raises :class:`AuthenticationError`, or what the presenter raises, when it is refused as well. Cancelled, the
        gateway may or may not have seen it.
        """
        if self._tokens is None or self._present is None:
            await trio.lowlevel.checkpoint()
            return
        token = self._tokens.token(self._now())
        try:
            await self._present(connection, token)
        except AuthenticationError:
            renewed = self._tokens.renew(token, self._now())
            if renewed == token:
                raise
            await self._present(connection, renewed)
            token = renewed
        self._shown = token

    async def keep_fresh(self, wait_up: Callable[[], Awaitable[Connection]]) -> None:
        """Present a new token whenever the present one is about to expire, until cancelled.

        Returns at once where none is presented.
        """
        if self._tokens is None or self._present is None:
            return
        while True:
            left = self._tokens.renew_at - self._now()
            if left > 0:
                await trio.sleep(min(max(left, 1.0), _JUMP))
                continue
            connection = await wait_up()
            try:
                await self.connected(connection)
            except (TransportError, trio.ClosedResourceError) as error:
                log.warning("the token could not be renewed: %s", error)
                await trio.sleep(1.0)  # a lost connection is being replaced, and the next one begins with a token

    # -- in a command ---------------------------------------------------------------------------------------------

    async def exchange(self, connection: Connection, method: MethodId, message: Any, *, rpc_length: str) -> Any:
        """:func:`agentao_trio.rpc.exchange`, with what this session has to say for itself."""
        request = self._fill_in(message)
        shown = self._shown
        try:
            return await exchange(connection, method, request, rpc_length=rpc_length)
        except CommandRejected as rejection:
            if not (self._carries_token(message) and _is_unauthorized(rejection, method)):
                raise
            if not await self._renew(connection, shown):
                raise
        return await exchange(connection, method, self._fill_in(message), rpc_length=rpc_length)

    def _carries_token(self, message: Any) -> bool:
        return self._present is not None or (self._tokens is not None and type(message) in _TENANT_FIELDS)

    def _fill_in(self, message: Any) -> Any:
        """The message with the tenant's name where that is missing, and the token where it belongs."""
        slot = _TENANT_FIELDS.get(type(message))
        if slot is None:
            return message
        fields = {slot: getattr(message, slot) or self.tenant_id}
        if self._tokens is not None and self._present is None:
            self._shown = self._tokens.token(self._now())
            # A supervisor's request has a slot of its own for a token, which may be another one (section 14).
            if not isinstance(message, messages.SuperviseSubscribeRequest):
                fields[slot] = self._shown
            elif not message.auth_token:
                fields["auth_token"] = self._shown
        return attrs.evolve(message, **fields)

    async def _renew(self, connection: Connection, refused: str) -> bool:
        """Show the gateway another token than the one it refused. Returns whether there is one that it may like."""
        assert self._tokens is not None
        async with self._renewing:  # the others who were refused the same token wait for this one
            if self._shown != refused:
                return True
            renewed = self._tokens.renew(refused, self._now())
            if renewed == refused:
                return False
            if self._present is not None:
                try:
                    await self._present(connection, renewed)
                except (TransportError, trio.ClosedResourceError) as error:
                    log.warning("a command was refused, and so was a new token: %s", error)
                    return False
            self._shown = renewed
            return True


def _is_unauthorized(rejection: CommandRejected, method: MethodId) -> bool:
    """Whether the gateway says that it did not carry out the command because of who we are."""
    reset = rejection.__cause__
    if isinstance(reset, StreamReset):
        return reset.code == CloseCode.UNAUTHORIZED and method in _HARMLESS
    return rejection.code == ErrorCode.ERR_UNAUTHORIZED
