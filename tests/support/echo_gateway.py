"""A gateway that answers every call and sends each packet back the moment it hears it: for measuring paths.

The embedded gateway's far ends speak in slots of 20 ms, as telephones do, so that what one packet is late all later
ones are. Here nothing but the path and the client add to the delay.
"""

from __future__ import annotations

from typing import Any

import trio

from agentao_trio import EventType, messages
from agentao_trio.errors import ConnectionLost, StreamReset
from agentao_trio.messages import MethodId
from agentao_trio.wire import FrameDecoder, encode_frame
from tests.support.scripted_gateway import ScriptedGateway

__all__ = ["EchoGateway"]

#: Seconds of unacknowledged audio at which a packet is dropped rather than sent back late.
_STALE = 0.35


class EchoGateway(ScriptedGateway):
    """``dropped`` counts packets that came back too slowly to be worth sending."""

    def __init__(self) -> None:
        super().__init__(self._take)
        self.dropped = 0

    async def _take(self, method: MethodId, request: Any) -> Any:
        if method is MethodId.Originate:
            await self.stream(
                self.event_frame(request.call_sid, EventType.CHANNEL_CREATE)
                + self.event_frame(request.call_sid, EventType.CHANNEL_ANSWER)
            )
            return messages.OriginateResponse(call_sid=request.call_sid)
        if method is MethodId.Terminate:
            await self.event(request.call_sid, EventType.CHANNEL_HANGUP_COMPLETE, q850_cause=16)
            return messages.TerminateResponse(call_sid=request.call_sid)
        return None

    async def _listen(self, stream: Any) -> None:
        self.uplink_streams += 1
        decoder = FrameDecoder()
        connection = self.connection
        assert connection is not None
        written: list[tuple[int, float]] = []
        total = 0
        try:
            back = await connection.open_uni(paced=True)
            while chunk := await stream.receive_some():
                for frame in decoder.feed(chunk):
                    now = trio.current_time()
                    while written and written[0][0] <= total - back.backlog:
                        written.pop(0)
                    if written and now - written[0][1] > _STALE:
                        self.dropped += 1
                        continue
                    data = encode_frame(frame.method_id, frame.body)
                    back.write(data)
                    total += len(data)
                    written.append((total, now))
            back.finish()
            self.uplinks_finished += 1
        except (StreamReset, ConnectionLost, trio.ClosedResourceError):
            pass
