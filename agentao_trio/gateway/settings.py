"""How the embedded gateway behaves: one frozen value, every time in seconds, every bound with its policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal

import attrs

from agentao_trio.audio import Codec
from agentao_trio.credentials import TokenVerifier
from agentao_trio.messages import InboundRule

__all__ = ["GatewaySettings", "Trunk"]


@attrs.frozen(kw_only=True)
class Trunk:
    """A line to the telephone network. Only its tenant may use it."""

    tenant: str = "default"
    #: What the far ends on this trunk negotiate.
    codec: Codec = Codec.PCMU


def _as_frozen(trunks: Mapping[str, Trunk]) -> Mapping[str, Trunk]:
    return MappingProxyType(dict(trunks))


def _as_set(names: Iterable[str]) -> frozenset[str]:
    return frozenset(names)


@attrs.frozen(kw_only=True)
class GatewaySettings:
    """The defaults are short times, so that a test or a demonstration is quick, and generous bounds."""

    #: The tenant of a connection that has not said otherwise.
    tenant: str = "default"
    #: Whether a connection must say otherwise, with a token, before its requests are carried out; see
    #: :mod:`agentao_trio.gateway.admission`.
    authentication: Literal["open", "required"] = "open"
    #: What tells good tokens from bad ones. Without it tokens are not looked at, which ``required`` rules out.
    verifier: TokenVerifier | None = None
    #: The trunks there are. While there are none, every trunk id belongs to everybody, except the empty one and those
    #: that begin with ``invalid``.
    trunks: Mapping[str, Trunk] = attrs.field(factory=dict, converter=_as_frozen)
    #: What a far end negotiates when neither it nor a trunk says.
    codec: Codec = Codec.PCMU
    #: The far end that answers numbers outside the table; ``None`` makes them invalid destinations.
    other_numbers: str | None = "echo"

    #: How replies look (PROTOCOL section 16.2): a frame, a bare envelope, or nothing but the end of the stream.
    reply: Literal["framed", "bare", "none"] = "framed"
    #: Where a call's audio goes: on the one stream that carries the connection's events as well, or on one of its own.
    audio_streams: Literal["shared", "per_call"] = "shared"

    #: From placing a call to its answer.
    ring: float = 0.3
    #: From placing a call to "busy", and to every other failure that has no time of its own.
    busy_after: float = 0.2
    #: From placing a call to "no user responding" (18) and to "no answer" (19).
    no_response_after: float = 1.0
    no_answer_after: float = 3.0
    #: How long a far end that hangs up by itself stays on the line.
    talk: float = 1.0
    #: How long after the answer a far end holds the call, and for how long.
    hold_after: float = 0.5
    hold_for: float = 0.5
    #: From the REFER of a transfer to its outcome.
    transfer_after: float = 0.2
    #: How long an inbound caller lets it ring.
    patience: float = 30.0

    #: What happens to inbound calls on a trunk without routing of its own. A production trunk rejects them; here they
    #: ring until somebody answers.
    inbound_rule: InboundRule = InboundRule.HANDLE_AI
    #: Whether SEND_DTMF takes the mode ``inband`` (PROTOCOL section 16.19).
    inband_dtmf: bool = False
    #: Whether a client may use LOOPBACK (14), as default_app or later.
    loopback: bool = True

    #: Originate per tenant and second; 0 is no limit. Beyond it: ERR_RATE_LIMITED.
    calls_per_second: int = 0
    #: Open calls; beyond them: ERR_CIRCUIT_BREAKER.
    max_calls: int = 10_000
    #: Client ids that are remembered. Beyond them the one that has been away longest is forgotten, events and all.
    max_clients: int = 1_000
    #: Seconds for which undelivered events are kept (PROTOCOL section 10.3), and how many per client id; then the
    #: oldest goes.
    event_window: float = 120.0
    max_events: int = 10_000
    #: A hangup whose bytes were acknowledged less than this before its stream was reset, or its connection lost, may
    #: have been thrown away by the peer all the same. It is sent again.
    replay_grace: float = 0.25
    #: Packets per call that wait to be heard by the far end, 20 ms each. Newer ones are dropped.
    max_uplink_packets: int = 1_500
    #: Bytes of audio in one frame. Larger ones are dropped.
    max_payload: int = 16_384
    #: Supervisors of one call.
    max_supervisors: int = 8
    #: Rows of one campaign, and campaigns of one tenant.
    max_campaign_rows: int = 100_000
    max_campaigns: int = 100
    #: Bytes of a file named by a client.
    max_file_bytes: int = 8 << 20

    #: Rules to break, by the names of :mod:`agentao_trio.gateway.faults`: a gateway to try judges and clients out with.
    faults: frozenset[str] = attrs.field(default=frozenset(), converter=_as_set)
    #: The seed of behaviour that is legal and unusual, to try clients out with; None is the usual.
    fuzz: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.authentication not in ("open", "required"):
            raise ValueError(f"authentication is {self.authentication!r}; expected 'open' or 'required'")
        if self.authentication == "required" and self.verifier is None:
            raise ValueError("authentication is required, but there is no verifier to tell good tokens from bad ones")
