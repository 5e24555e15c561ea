"""Listening to a call that somebody else holds, and speaking into it (PROTOCOL section 14, SuperviseSubscribe).

The call's audio arrives under its ``call_sid`` like any other; what the supervisor says leaves on one uni stream of its
own. Which side hears it is the mode's business: nobody (monitor), the agent, the caller, or both (barge).

A supervisor's seat outlives a connection, as a call does. It ends with the call's hangup, and where neither audio nor
an event came from the loss of a connection on for as long as the gateway remembers us: then the hangup may have been
forgotten, and a call that is still there has to be subscribed to anew.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol

import trio

from agentao_trio import messages
from agentao_trio.audio import AudioFrame, Codec
from agentao_trio.audio_frames import AudioFields
from agentao_trio.broadcast import Subscription
from agentao_trio.errors import CommandRejected, LocalProtocolError
from agentao_trio.events import EventRecord
from agentao_trio.legible import legible
from agentao_trio.media import INBOX_SECONDS, Downlink, Uplink
from agentao_trio.messages import EventType, MethodId, SuperviseMode

__all__ = ["Supervision"]

_SPEAKING = frozenset({SuperviseMode.WHISPER_AGENT, SuperviseMode.WHISPER_CALLER, SuperviseMode.BARGE})


class SupervisionPort(Protocol):
    """What a supervision needs of its session."""

    async def request(self, method: MethodId, message: Any) -> Any: ...
    def end_supervision(self, supervision: Supervision) -> None: ...


class Supervision:
    """A seat beside a call. Use it as an async context manager: leaving stops listening. Ends with the call, or where
    the gateway tells nothing of it any more after an outage.

    Made by :meth:`Session.supervise`.
    """

    def __init__(self, port: SupervisionPort, call_sid: str, mode: SuperviseMode, uplink: Uplink) -> None:
        self.call_sid = call_sid
        self.mode = mode
        self._port = port
        self._uplink = uplink
        self._downlink = Downlink()
        self._scope = trio.CancelScope()
        self._heard_at = trio.current_time()  # when the gateway last told us anything, in seconds of trio's clock

    def __repr__(self) -> str:
        state = "over" if self._scope.cancel_called else "open"
        return (
            f"<Supervision of {self.call_sid}, {self.mode!r}, {state}, {self._downlink.packets_received} packets heard>"
        )

    async def __aenter__(self) -> Supervision:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()
        self._port.end_supervision(self)
        await trio.lowlevel.checkpoint()

    def audio(self, *, seconds: float = INBOX_SECONDS) -> Subscription[AudioFrame]:
        """An async iterator over what is said on the call; see :meth:`ActiveCall.audio`."""
        return self._downlink.subscribe(seconds)

    async def send_audio(self, data: bytes, *, codec: Codec = Codec.PCMU) -> None:
        """Speak into the call, paced; see :meth:`ActiveCall.send_audio`.

        Raises :class:`LocalProtocolError` in a mode that only listens and :class:`trio.ClosedResourceError` once the
        call has ended. Cancelled, what is not queued yet is dropped and counted.
        """
        if self.mode not in _SPEAKING:
            raise LocalProtocolError(f"the mode {self.mode.name} only listens; nobody would hear this")
        await self._uplink.send(data, codec)

    async def _subscribe(self, request: messages.SuperviseSubscribeRequest) -> None:
        reply = await self._port.request(MethodId.SuperviseSubscribe, request)
        if reply is not None and reply.error_message:
            raise CommandRejected(
                f"SuperviseSubscribe was refused: {legible(reply.error_message)}", method="SuperviseSubscribe"
            )

    async def _run(self) -> None:
        with self._scope:
            await self._uplink.run()

    def _deliver_event(self, record: EventRecord) -> None:
        self._heard_at = record.received_at
        if record.event.event_type == EventType.CHANNEL_HANGUP_COMPLETE:
            self._end()

    def _deliver_audio(self, fields: AudioFields, at: float) -> None:
        self._heard_at = at
        self._downlink.arrived(fields, at)

    def _connection_replaced(self) -> None:
        self._uplink.connection_replaced()

    def _end(self) -> None:
        self._scope.cancel()
        self._downlink.end()
