"""Who may hear what: clients, the rooms they are in, and what they ask for.

Nothing here waits. A client enters a room and gets the snapshot that goes with it in one step, so that no event can
fall between the two or come twice. Clients change nothing but their own subscriptions.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from agentao_trio.live import feed
from agentao_trio.live.calls import iso
from agentao_trio.live.client import Client, Counters, parcel
from agentao_trio.live.feed import Feed, LiveEvent, within
from agentao_trio.live.outbox import Parcel
from agentao_trio.live.packets import EnginePacket, EngineType, PacketError, SocketPacket, SocketType, encode_socket

__all__ = ["Desk"]

#: Rooms that one client may be in, and characters of the sids it names.
MOST_ROOMS = 200
LONGEST_SID = 256
#: What a request costs of a client's allowance: of everything, as much as a few of one call.
COST, COST_OF_EVERYTHING = 1.0, 10.0

_encoder = msgspec.json.Encoder()


def parcel_of(event: LiveEvent) -> Parcel:
    """An event as a Socket.IO packet of the default namespace, encoded once for everybody."""
    arguments = _encoder.encode([event.name, *event.args]).decode()
    return parcel(EnginePacket(EngineType.MESSAGE, SocketType.EVENT.value + arguments))


class Desk:
    """The clients of one feed.

    ``tokens`` maps what a client may show to the tenant whose calls it may see, "" for all of them; without any,
    everybody sees everything. ``now`` tells Unix seconds.
    """

    def __init__(
        self, source: Feed, *, tokens: Mapping[str, str], counters: Counters, now: Callable[[], float]
    ) -> None:
        self.clients: dict[str, Client] = {}
        self._feed = source
        self._tokens = [(token.encode(), tenant) for token, tenant in tokens.items()]
        self._counters = counters
        self._now = now
        self._rooms: dict[str, set[Client]] = {}

    # -- events out ---------------------------------------------------------------------------------------------------

    def emit(self, event: LiveEvent) -> set[Client]:
        """Let an event wait for everybody in its rooms, and return these; they still have to be woken."""
        hearers: set[Client] = set()
        for room in event.rooms:
            hearers |= self._rooms.get(room, set())
        if hearers:
            packed = parcel_of(event)
            for client in hearers:
                client.outbox.put(packed)
            self._counters.packets_queued += len(hearers)
        return hearers

    def refresh(self, client: Client) -> None:
        """Give a client that lost events the state of everything it follows."""
        tenant = client.tenant or ""
        events: list[LiveEvent | None] = []
        for room in sorted(client.rooms):
            events += self._state(room, tenant)
        client.outbox.refresh(parcel_of(event) for event in events if event is not None)

    def _state(self, room: str, tenant: str) -> list[LiveEvent | None]:
        """What somebody who enters a room has to know."""
        if room == feed.CALLS:
            return [self._feed.snapshot(self._now(), tenant)]
        if room == feed.TRANSCRIPTS:
            return [*self._feed.transcripts(tenant)]
        kind, _, call_sid = room.partition("-")
        return [self._feed.call(call_sid, tenant) if kind == "call" else self._feed.transcript(call_sid, tenant)]

    # -- clients ------------------------------------------------------------------------------------------------------

    def gone(self, client: Client) -> None:
        """Forget a client."""
        self.clients.pop(client.sid, None)
        self._disconnect(client)

    def received(self, client: Client, packet: SocketPacket) -> None:
        """Take one Socket.IO packet. Raises :class:`PacketError` for what no well-behaved client sends."""
        match packet.type:
            case SocketType.CONNECT:
                self._connect(client, packet)
            case _ if client.tenant is None or packet.namespace != "/":
                raise PacketError("that namespace is not connected")
            case SocketType.DISCONNECT:
                self._disconnect(client)
            case SocketType.EVENT:
                answer = self._ask(client, packet.data[0], packet.data[1:])
                if packet.ack is not None:
                    self._answer(client, SocketPacket(type=SocketType.ACK, ack=packet.ack, data=[answer]))
            case SocketType.ACK:
                pass  # we ask for none, so it answers nothing
            case SocketType.CONNECT_ERROR:
                raise PacketError("a client refuses no connection")

    def _connect(self, client: Client, packet: SocketPacket) -> None:
        refusal = ""
        tenant: str | None = None
        if packet.namespace != "/":
            refusal = "Invalid namespace"
        elif client.tenant is not None:
            raise PacketError("it is connected already")
        elif not client.allowance.take(COST_OF_EVERYTHING, self._now()):  # also of guesses at a token
            self._counters.requests_refused += 1
            refusal = "Too many requests"
        elif (tenant := self._admit((packet.data or {}).get("token"))) is None:
            refusal = "A valid token is required"
        if refusal:
            self._counters.refused += 1
            data: dict[str, Any] = {"message": refusal}
            self._answer(client, SocketPacket(type=SocketType.CONNECT_ERROR, namespace=packet.namespace, data=data))
            return
        client.tenant = tenant
        self._answer(client, SocketPacket(type=SocketType.CONNECT, data={"sid": client.sid}))
        self._send(client, self._state(feed.CALLS, client.tenant or ""))

    def _disconnect(self, client: Client) -> None:
        """It hears nothing more; its session stays, and may connect again."""
        for room in tuple(client.rooms):
            self._leave(client, room)
        client.disconnected()
        client.outbox.refresh(())

    def _admit(self, token: object) -> str | None:
        """The tenant whose calls this token shows; None for no token of ours."""
        if not self._tokens:
            return ""
        shown = token.encode(errors="replace") if isinstance(token, str) else b""
        admitted = None
        for ours, tenant in self._tokens:  # all of them: the time it takes tells nothing
            if hmac.compare_digest(ours, shown):
                admitted = tenant
        return admitted

    def _ask(self, client: Client, name: str, arguments: list[Any]) -> dict[str, Any]:
        """Do what the client's event asks for; the answer is what its acknowledgement says."""
        cost = COST_OF_EVERYTHING if name in ("subscribe_to_calls", "subscribe_to_transcripts") else COST
        if not client.allowance.take(cost, self._now()):
            return self._refuse(client, cost)
        one_call = name in ("subscribe_to_call", "unsubscribe_from_call", "subscribe_to_call_transcript")
        call_sid = _sid(arguments) if one_call else ""
        if one_call and not call_sid:
            return {"ok": False, "error": "the call's sid is missing"}
        match name:
            case "subscribe_to_calls":
                room = feed.CALLS
            case "subscribe_to_call":
                room = feed.room_of_call(call_sid)
            case "subscribe_to_transcripts":
                room = feed.TRANSCRIPTS
            case "subscribe_to_call_transcript":
                room = feed.room_of_transcript(call_sid)
            case "unsubscribe_from_call":
                for room in (feed.room_of_call(call_sid), feed.room_of_transcript(call_sid)):
                    self._leave(client, room)
                return {"ok": True}
            case _:
                return {"ok": False, "error": "there is no such request"}
        if len(client.rooms | {room}) > MOST_ROOMS:
            return {"ok": False, "error": f"more than {MOST_ROOMS} subscriptions"}
        self._enter(client, room)
        return {"ok": True}

    def _refuse(self, client: Client, cost: float) -> dict[str, Any]:
        """Too much was asked for: the answer says so each time, and an event once."""
        self._counters.requests_refused += 1
        wait_ms = math.ceil(1000 * client.allowance.wait(cost))
        message = "too many requests"
        if client.allowance.refused == 1:
            error = {"source": "server", "code": "rate_limited", "message": message, "fatal": False}
            told = {**error, "retryAfterMs": wait_ms, "timestamp": iso(self._now())}
            self._send(client, [LiveEvent(name="error", args=(told,))])
        return {"ok": False, "error": message, "retryAfterMs": wait_ms}

    def _enter(self, client: Client, room: str) -> None:
        """Into the room, and the state of it: one step, without a checkpoint between the two."""
        tenant = client.tenant or ""
        events = self._state(room, tenant)
        if room == feed.CALLS and room not in client.rooms:
            events.append(self._feed.quality(tenant))
        client.rooms.add(room)
        self._rooms.setdefault(within(tenant, room), set()).add(client)
        self._send(client, events)

    def _leave(self, client: Client, room: str) -> None:
        client.rooms.discard(room)
        name = within(client.tenant or "", room)
        inside = self._rooms.get(name, set())
        inside.discard(client)
        if not inside:
            self._rooms.pop(name, None)

    def _send(self, client: Client, events: Iterable[LiveEvent | None]) -> None:
        for event in events:
            if event is not None:
                client.outbox.put(parcel_of(event))
        client.wake()

    def _answer(self, client: Client, packet: SocketPacket) -> None:
        client.outbox.put_first(parcel(EnginePacket(EngineType.MESSAGE, encode_socket(packet))))
        client.wake()


def _sid(arguments: list[Any]) -> str:
    """The sid that a request names: as its argument, or as ``callSid`` of an object; "" where there is none."""
    match arguments:
        case [str(call_sid), *_] | [{"callSid": str(call_sid)}, *_] if len(call_sid) <= LONGEST_SID:
            return call_sid.encode(errors="replace").decode()
    return ""
