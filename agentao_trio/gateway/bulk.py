"""Campaigns: a file of numbers, dialled at a given pace, so many at a time (PROTOCOL sections 13.1 and 13.2).

The file is CSV in UTF-8 with a header line. The column ``to`` is the number or SIP URI. Further columns, each optional,
override the template of the request for one row: ``call_from``, ``trunk_id``, ``default_app_args``, ``max_duration_ms``
and ``call_sid``. An empty cell, like a missing column, leaves the template in force; columns with other names are
ignored, so that a file may carry whatever else its owner keeps there. ::

    to,call_from,note
    +15550100001,+15550109999,echo
    +15550100017,,busy

Rows whose destination is malformed, whose duration is not a number or whose ids are absurdly long are not loaded. Where
the file names no call_sid, the calls are called ``<campaign>-00001`` and so on; a row whose call_sid is taken when its
turn comes is passed over. Every other row that is not aborted or skipped ends with a hangup event: one that the gateway
would refuse as a request of its own is created and hung up at once, with a cause that says why.
"""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

import attrs

from agentao_trio.dialplan import is_destination
from agentao_trio.gateway.calls import Call
from agentao_trio.gateway.commands import MAX_ID, check_id, invalid, local_path, reason
from agentao_trio.gateway.exchange import Exchange
from agentao_trio.gateway.subscriptions import Peer
from agentao_trio.gateway.timers import Timer
from agentao_trio.legible import quoted
from agentao_trio.messages import BulkRequest, OriginateRequest

__all__ = ["Campaign", "Campaigns", "Dial", "read_campaign"]


class Dial(Protocol):
    """Places a call of a campaign; what cannot be placed ends at once. ``None`` when there is to be no call at all."""

    def __call__(self, peer: Peer, request: OriginateRequest, now: float) -> Call | None: ...


@attrs.define(eq=False, kw_only=True)
class Campaign:
    """What is left of a campaign: pending rows and running calls. Its bucket bears its id."""

    campaign_id: str
    tenant: str
    placed_by: Peer
    pending: deque[OriginateRequest]
    #: Seconds between two calls; 0 for no pause.
    interval: float
    #: How many calls may run at once; 0 for any number.
    max_concurrent: int
    running: set[Call] = attrs.field(factory=set)
    next_at: float
    timer: Timer | None = None

    def has_room(self) -> bool:
        """Whether another of its calls may be placed now."""
        return not self.max_concurrent or len(self.running) < self.max_concurrent


class Campaigns:
    """All campaigns of all tenants. A campaign is forgotten with its last call."""

    def __init__(self, exchange: Exchange, dial: Dial, read_file: Callable[[str], bytes]) -> None:
        self._exchange = exchange
        self._dial = dial
        self._read_file = read_file
        self._campaigns: dict[tuple[str, str], Campaign] = {}

    def start(self, peer: Peer, request: BulkRequest, now: float) -> int:
        """Load the file and begin to dial. Returns the number of rows; raises :class:`Refused`."""
        settings = self._exchange.settings
        if request.calls_per_second < 0 or request.max_concurrent_calls < 0:
            raise invalid("calls_per_second and max_concurrent_calls cannot be negative; 0 is no limit")
        check_id("campaign_id", request.campaign_id)
        check_id("trunk_id", request.template_trunk_id)
        campaign_id = request.campaign_id or f"campaign-{self._exchange.next_number()}"
        if (peer.tenant, campaign_id) in self._campaigns:
            raise invalid(f"campaign {quoted(campaign_id)} is running already")
        if sum(each.tenant == peer.tenant for each in self._campaigns.values()) >= settings.max_campaigns:
            raise invalid(f"{settings.max_campaigns} campaigns are running already")
        path = local_path(request.csv_url, ".csv")
        try:
            rows = read_campaign(self._read_file(path), request, campaign_id, max_rows=settings.max_campaign_rows)
        except (OSError, ValueError) as error:
            raise invalid(f"{quoted(path)} cannot be loaded: {reason(error)}") from error
        campaign = Campaign(
            campaign_id=campaign_id,
            tenant=peer.tenant,
            placed_by=peer,
            pending=deque(rows),
            interval=1 / request.calls_per_second if request.calls_per_second else 0.0,
            max_concurrent=request.max_concurrent_calls,
            next_at=now,
        )
        self._campaigns[peer.tenant, campaign_id] = campaign
        self._go_on(campaign, now)
        return len(rows)

    def abort(self, tenant: str, campaign_id: str, now: float) -> int:
        """Drop the pending rows; running calls finish. Returns how many rows; raises :class:`Refused`."""
        campaign = self._campaigns.get((tenant, campaign_id))
        if campaign is None:
            raise invalid(f"there is no campaign {quoted(campaign_id)}")
        dropped = len(campaign.pending)
        campaign.pending.clear()
        self._go_on(campaign, now)
        return dropped

    def of(self, tenant: str) -> list[Campaign]:
        """The tenant's campaigns that have rows pending."""
        return [each for each in self._campaigns.values() if each.tenant == tenant and each.pending]

    def take_next(self, campaign: Campaign, now: float) -> None:
        """Dial the next row at once, whatever pace and concurrency say."""
        self._dial_next(campaign, now)
        self._go_on(campaign, now)

    def skip(self, campaign: Campaign, now: float) -> None:
        """Drop the next row."""
        campaign.pending.popleft()
        self._go_on(campaign, now)

    def _go_on(self, campaign: Campaign, now: float) -> None:
        """Dial what may be dialled by now, and plan the rest."""
        if campaign.timer is not None:
            campaign.timer.cancel()
        while campaign.pending and campaign.has_room() and self._exchange.has_room() and campaign.next_at <= now:
            # Counted from when the row was due, so that the pace is kept; but a campaign that had to wait for its
            # calls to end does not make up for lost time.
            late = now - campaign.next_at > campaign.interval
            campaign.next_at = (now if late else campaign.next_at) + campaign.interval
            self._dial_next(campaign, now)
        if not campaign.pending:
            if not campaign.running:
                self._campaigns.pop((campaign.tenant, campaign.campaign_id), None)
        elif campaign.has_room():
            # Without room in the whole exchange there is no telling when to go on: look again soon.
            when = campaign.next_at if self._exchange.has_room() else now + 0.1
            campaign.timer = self._exchange.timers.at(when, partial(self._go_on, campaign))

    def _dial_next(self, campaign: Campaign, now: float) -> None:
        call = self._dial(campaign.placed_by, campaign.pending.popleft(), now)
        if call is not None and call.is_open:
            campaign.running.add(call)
            call.on_end = partial(self._ended, campaign)

    def _ended(self, campaign: Campaign, call: Call, now: float) -> None:
        campaign.running.discard(call)
        self._go_on(campaign, now)


def read_campaign(data: bytes, template: BulkRequest, campaign_id: str, *, max_rows: int) -> list[OriginateRequest]:
    """The calls of a campaign, in the order of the file. Raises ValueError when it is not a file of numbers at all."""
    try:
        rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), skipinitialspace=True, strict=True)
        if rows.fieldnames is None or "to" not in rows.fieldnames:
            raise ValueError("the file has no header line with a column named 'to'")
        requests: list[OriginateRequest] = []
        for row in rows:
            cells = {name: cell.strip() for name, cell in row.items() if isinstance(cell, str) and cell.strip()}
            request = _request(cells, template, f"{campaign_id}-{len(requests) + 1:05}")
            if request is not None:
                requests.append(request)
            if len(requests) > max_rows:
                raise ValueError(f"the file has more than {max_rows} rows")
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"the file is not CSV in UTF-8: {error}") from error
    return requests


def _request(cells: dict[str, str], template: BulkRequest, call_sid: str) -> OriginateRequest | None:
    to = cells.get("to", template.template_to)
    duration = cells.get("max_duration_ms", str(template.template_max_duration_ms))
    if not is_destination(to) or not re.fullmatch(r"[0-9]{1,10}", duration) or int(duration) >= 1 << 31:
        return None
    trunk_id = cells.get("trunk_id", template.template_trunk_id)
    call_sid = cells.get("call_sid", call_sid)
    if max(len(trunk_id), len(call_sid)) > MAX_ID:
        return None
    return OriginateRequest(
        trunk_id=trunk_id,
        to=to,
        call_from=cells.get("call_from", template.template_call_from),
        ai_websocket_url=template.template_ai_websocket_url,
        ai_quic_url=template.template_ai_quic_url,
        tenant_id=template.template_tenant_id,
        max_duration_ms=int(duration),
        call_sid=call_sid,
        default_app=template.template_default_app,
        default_app_args=cells.get("default_app_args", template.template_default_app_args),
    )
