"""Who a connection speaks for, and whether that is enough (PROTOCOL sections 2.3 and 2.4).

The protocol leaves open where a token comes from, so this gateway takes it from wherever it comes: alone on a
bidirectional stream, or in the tenant field of a request (in ``auth_token`` of SuperviseSubscribe). Either way a good
token gives the *connection* its tenant, for good: a token of another tenant is refused afterwards. So a client that has
only the tenant field to put its token in can hang up the calls it has placed, and is told of them.

In the ``open`` mode a connection without a token is the default tenant's. In the ``required`` mode it is nobody's: its
requests are refused with ERR_UNAUTHORIZED and its audio belongs to no call; its subscriptions, which have no reply that
could say so, wait for the token. When the token expires the connection's requests are refused until it has presented
another one; its calls, events and audio go on meanwhile.
"""

from __future__ import annotations

import logging
import math

from agentao_trio.credentials import is_token
from agentao_trio.errors import AuthenticationError
from agentao_trio.gateway.commands import Refused
from agentao_trio.gateway.exchange import Exchange
from agentao_trio.gateway.subscriptions import Peer
from agentao_trio.messages import (
    AllocateWtRequest,
    BulkRequest,
    ErrorCode,
    Message,
    OriginateRequest,
    SuperviseSubscribeRequest,
)

__all__ = ["Admission"]

log: logging.Logger = logging.getLogger("agentao_trio.gateway")

_MAX_WAITING = 16


class Admission:
    """Decides for one gateway."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._verifier = exchange.settings.verifier
        self._required = exchange.settings.authentication == "required"

    def present(self, peer: Peer, token: str, now: float) -> None:
        """The connection shows a token; from here on it speaks for the token's tenant. Raises :class:`Refused`.

        Where nothing is known that could tell a good token from a bad one, every token is accepted and means nothing.
        """
        if self._verifier is None:
            return
        unix = self._exchange.ms(now) / 1000
        try:
            identity = self._verifier.verify(token, unix)
        except AuthenticationError as error:
            raise self._refuse(str(error)) from None
        if peer.vouched_until > -math.inf and identity.tenant_id != peer.tenant:
            raise self._refuse("the token speaks for another tenant than this connection does")
        if identity.tenant_id != peer.tenant:
            self._exchange.change_tenant(peer, identity.tenant_id, now)
        peer.vouched_until = max(peer.vouched_until, identity.expires_at)
        self._exchange.counters.tokens_accepted += 1
        waiting, peer.waiting = peer.waiting, []
        for client_id in waiting:
            self._exchange.subscribe(peer, client_id, now)

    def _refuse(self, why: str) -> Refused:
        self._exchange.counters.tokens_refused += 1
        log.info("a token was refused: %s", why)
        return Refused(ErrorCode.ERR_UNAUTHORIZED, why)

    def admit(self, peer: Peer, request: Message, now: float) -> None:
        """Look at the token in the request, if there is one. Raises :class:`Refused` unless it may be carried out."""
        token = _token_in(request)
        if token:
            self.present(peer, token, now)
        if not self._is_admitted(peer, now):
            raise Refused(
                ErrorCode.ERR_UNAUTHORIZED,
                "the token of this connection has expired"
                if peer.vouched_until > -math.inf
                else "this gateway requires a token, and this connection has presented none",
            )

    def subscribe(self, peer: Peer, client_id: str, now: float) -> None:
        """Subscribe, at once or when the connection has said who it is."""
        if self._is_admitted(peer, now):
            self._exchange.subscribe(peer, client_id, now)
        elif client_id not in peer.waiting:
            peer.waiting = [*peer.waiting, client_id][-_MAX_WAITING:]

    def _is_admitted(self, peer: Peer, now: float) -> bool:
        return not self._required or self._exchange.ms(now) / 1000 < peer.vouched_until


def _token_in(request: Message) -> str:
    match request:
        case SuperviseSubscribeRequest() if request.auth_token:
            text = request.auth_token
        case OriginateRequest() | AllocateWtRequest() | SuperviseSubscribeRequest():
            text = request.tenant_id
        case BulkRequest():
            text = request.template_tenant_id
        case _:
            text = ""
    return text if is_token(text) else ""
