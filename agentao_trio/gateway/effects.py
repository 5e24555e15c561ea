"""What the exchange wants sent, in order, and what it counts.

The exchange does no I/O. It leaves these values for the server, which carries them out in the order in which they came
about: end of stream, for instance, before the hangup.
"""

from __future__ import annotations

import attrs

from agentao_trio.gateway.calls import Call
from agentao_trio.gateway.subscriptions import Peer, Subscription
from agentao_trio.messages import AudioFrame

__all__ = ["Counters", "Effect", "Resume", "SendAudio", "SendEvents", "Speak"]


@attrs.frozen
class SendAudio:
    """Send one frame now."""

    peer: Peer
    frame: AudioFrame


@attrs.frozen
class SendEvents:
    """The subscription has events to be sent, and a peer."""

    subscription: Subscription


@attrs.frozen
class Resume:
    """The subscription has moved to another peer, or to none; ``previous`` must not get anything any more."""

    subscription: Subscription
    previous: Peer | None


@attrs.frozen
class Speak:
    """The call needs its slots from now on."""

    call: Call


Effect = SendAudio | SendEvents | Resume | Speak


@attrs.define(eq=False)
class Counters:
    """What happened so far; :meth:`GatewayModel.statistics` shows it."""

    calls_placed: int = 0
    calls_answered: int = 0
    calls_ended: int = 0
    requests_refused: int = 0
    tokens_accepted: int = 0
    tokens_refused: int = 0
    events_emitted: int = 0
    events_dropped: int = 0
    subscriptions_forgotten: int = 0
    frames_for_unknown_calls: int = 0
    packets_received: int = 0
    packets_refused: int = 0
    packets_after_eos: int = 0
    packets_sent: int = 0
    packets_not_delivered: int = 0
