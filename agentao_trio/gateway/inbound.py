"""Calls from outside: what a trunk does with them, and who answers (PROTOCOL section 13.3).

A rule belongs to a trunk.

* REJECT turns a call away before there is a channel: no event, nothing to list.
* PLAY_AND_HANGUP answers, plays the file of ``audio_url`` (the gateway's recording if that cannot be read), hangs up.
* NOTIFY_AND_HANGUP turns the call away with cause 21 and notes the webhook in :attr:`Inbound.notifications`; it is not
  called.
* HANDLE_AI with a URL answers by itself and streams the audio to the tenant's first subscriber; without one the call
  waits for AnswerIncomingCall.

Every subscriber of the trunk's tenant is told of the call. Its audio goes to the one who answered.
"""

from __future__ import annotations

from collections import deque
from functools import partial

import attrs

from agentao_trio.audio import PACKET_MS
from agentao_trio.causes import CALL_REJECTED, NORMAL_CLEARING
from agentao_trio.gateway.calls import Call
from agentao_trio.gateway.commands import Refused, invalid, local_path
from agentao_trio.gateway.control import CallControl
from agentao_trio.gateway.exchange import Exchange
from agentao_trio.gateway.subscriptions import Peer
from agentao_trio.legible import quoted
from agentao_trio.messages import InboundRule, SetInboundRoutingRequest

__all__ = ["Inbound", "Notification"]

_MAX_NOTIFICATIONS = 1_000
_MAX_ROUTED_TRUNKS = 1_000


@attrs.frozen
class Notification:
    """A webhook that a gateway on a real network would have called."""

    webhook_url: str
    call_sid: str


class Inbound:
    """The rules of the trunks, and the calls that wait."""

    def __init__(self, exchange: Exchange, control: CallControl) -> None:
        self._exchange = exchange
        self._control = control
        self._rules: dict[tuple[str, str], SetInboundRoutingRequest] = {}
        #: The most recent ones.
        self.notifications: deque[Notification] = deque(maxlen=_MAX_NOTIFICATIONS)

    def route(self, tenant: str, request: SetInboundRoutingRequest) -> None:
        """Set a trunk's rule. Raises :class:`Refused` for a rule that is none, or lacks what it needs."""
        if request.rule not in InboundRule.__members__.values():
            raise invalid(f"{request.rule} is not an inbound rule")
        if request.rule == InboundRule.PLAY_AND_HANGUP:
            local_path(request.audio_url, ".wav")
        if request.rule == InboundRule.NOTIFY_AND_HANGUP and not request.webhook_url:
            raise invalid("NOTIFY_AND_HANGUP needs a webhook_url")
        if len(self._rules) >= _MAX_ROUTED_TRUNKS and (tenant, request.trunk_id) not in self._rules:
            raise invalid(f"there are rules for {_MAX_ROUTED_TRUNKS} trunks already")
        self._rules[tenant, request.trunk_id] = request

    def ring(self, call: Call, now: float) -> bool:
        """A call comes in. Returns whether the trunk let it in at all."""
        default = SetInboundRoutingRequest(rule=self._exchange.settings.inbound_rule)
        routing = self._rules.get((call.tenant, call.trunk_id), default)
        if routing.rule == InboundRule.REJECT:
            return False
        call.audience = self._exchange.subscriptions_of(call.tenant, now)
        self._exchange.create(call, now)
        settings = self._exchange.settings
        match routing.rule:
            case InboundRule.PLAY_AND_HANGUP:
                call.on_answer = partial(self._play_and_hang_up, routing.audio_url)
                self._exchange.after(call, now + settings.ring, self._exchange.answer)
            case InboundRule.NOTIFY_AND_HANGUP:
                self.notifications.append(Notification(routing.webhook_url, call.call_sid))
                self._exchange.after(call, now + settings.busy_after, self._exchange.end, CALL_REJECTED)
            case _ if routing.ai_websocket_url or routing.ai_quic_url:
                self._exchange.after(call, now + settings.ring, self._answer_for_somebody)
        return True

    def _play_and_hang_up(self, audio_url: str, call: Call, now: float) -> None:
        try:
            packets = tuple(self._control.open_wav(local_path(audio_url, ".wav"), call.codec))
        except Refused:
            packets = self._exchange.recording(call.codec)
        call.leg.play(iter(packets))
        self._exchange.after(call, now + len(packets) * PACKET_MS / 1000, self._exchange.end, NORMAL_CLEARING)

    def _answer_for_somebody(self, call: Call, now: float) -> None:
        call.listener = next((each for each in call.audience if each.peer is not None), None)
        self._exchange.answer(call, now)

    def waiting(self, tenant: str, trunk_id: str) -> list[Call]:
        """The calls nobody has answered yet, the one that rings longest first."""
        return [
            call
            for call in self._exchange.calls.values()
            if call.is_waiting and call.tenant == tenant and call.trunk_id == trunk_id
        ]

    def answer(self, peer: Peer, call: Call, now: float) -> None:
        """``peer`` takes the call. Raises :class:`Refused` when it does not wait (any more)."""
        if not call.is_waiting:
            raise invalid(f"call {quoted(call.call_sid)} is not waiting for an answer")
        subscription = self._exchange.subscription_of(peer)
        self._exchange.join(call, subscription, now)
        call.listener = subscription
        self._exchange.answer(call, now)
