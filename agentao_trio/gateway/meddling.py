"""How faults get at the gateway they sit in: its hands, and its socket."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import trio

from agentao_trio import messages
from agentao_trio.gateway.calls import Call
from agentao_trio.gateway.downlink import Downlink
from agentao_trio.gateway.fault import Downward, Fault
from agentao_trio.gateway.model import GatewayModel
from agentao_trio.gateway.subscriptions import Peer
from agentao_trio.messages import MethodId
from agentao_trio.transport import Address, DatagramSocket

__all__ = ["GatewayHands", "MeddlingSocket"]


class _Link(Protocol):
    @property
    def downlink(self) -> Downlink: ...


L = TypeVar("L", bound=_Link)


class GatewayHands(Generic[L]):
    """:class:`agentao_trio.gateway.fault.Hands` of a gateway that is up.

    It is made of the gateway's model and connections, and of what sends what the model wants sent, sets the alarm for
    the model's timers, and closes a connection.
    """

    def __init__(
        self,
        *,
        model: GatewayModel,
        links: Mapping[Peer, L],
        carry_out: Callable[[], None],
        set_alarm: Callable[[], None],
        close: Callable[[L], None],
    ) -> None:
        self._model = model
        self._links = links
        self._carry_out = carry_out
        self._set_alarm = set_alarm
        self._close = close

    @property
    def calls(self) -> Mapping[str, Call]:
        return self._model.calls

    @property
    def peers(self) -> Sequence[Peer]:
        return tuple(self._links)

    def now(self) -> float:
        return trio.current_time()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self._model.later(trio.current_time() + seconds, lambda _: action())
        self._set_alarm()

    def send(self, peer: Peer, message: Downward, *, apart: bool = False) -> None:
        if (link := self._links.get(peer)) is not None:
            link.downlink.send_as_is(message, apart=apart)

    def drop(self, peer: Peer) -> None:
        if (link := self._links.get(peer)) is not None:
            self._close(link)

    def reset_streams(self, peer: Peer) -> None:
        if (link := self._links.get(peer)) is not None:
            link.downlink.reset(0, trio.current_time())

    def subscribe(self, peer: Peer, client_id: str) -> None:
        request = messages.EventStreamRequest(client_id=client_id)
        self._model.handle(peer, MethodId.StreamEvents, request, trio.current_time())

    def end(self, call: Call, cause: int) -> None:
        if call.is_open:
            self._model.hang_up(call.call_sid, cause, trio.current_time())
            self._carry_out()

    def toggle_hold(self, call: Call) -> None:
        if call.is_open:
            self._model.toggle_hold(call, trio.current_time())
            self._carry_out()


class MeddlingSocket:
    """A :class:`~agentao_trio.transport.DatagramSocket` whose datagrams a fault may drop."""

    def __init__(self, socket: DatagramSocket, faults: Fault) -> None:
        self._socket = socket
        self._faults = faults

    @property
    def address(self) -> Address:
        return self._socket.address

    async def resolve(self, host: str, port: int) -> Address:
        return await self._socket.resolve(host, port)

    def send(self, data: bytes, to: Address) -> None:
        if self._faults.leaving(data, to):
            self._socket.send(data, to)

    def receive(self) -> tuple[bytes, Address]:
        while True:
            datagram, source = self._socket.receive()
            if self._faults.arriving(datagram, source):
                return datagram, source

    async def wait_readable(self) -> None:
        await self._socket.wait_readable()

    def close(self) -> None:
        self._socket.close()
