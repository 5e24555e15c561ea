"""Says a model's audio on a call: at the call's pace, and so that it can be stopped in the middle of a word.

Theory of operation
-------------------
The gateway cannot be told to forget audio, and buffers what comes early, so that nothing may be sent before its time.
The call's own writer sends one packet per slot of the session's packet clock. :class:`Speaker` keeps at most
``PACKETS_AHEAD`` packets with it: the next is handed over when a mark behind an earlier one is passed. Thus the clock
paces everything, with absolute deadlines, and 40 ms is all that there is to take back.

:meth:`Speaker.interrupt` does that within one step of the task that calls it: no packet goes out after it. A packet
that is being handed over in that moment is taken back by the task that does so, before the clock's next tick.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable

import trio

from agentao_trio.call import ActiveCall
from agentao_trio.errors import CallEnded, CallStateError
from agentao_trio.media import Mark
from agentao_trio.realtime.playout import Cut, ModelAudio, Packet, Played

__all__ = ["PACKETS_AHEAD", "Speaker"]

#: Packets of 20 ms that the call may have waiting for their slots.
PACKETS_AHEAD = 2


class Speaker:
    """Takes packets from ``audio`` and says them on ``call``.

    ``sent`` is called for each packet that went out, with the parts of which that was the end.
    """

    def __init__(
        self, call: ActiveCall, audio: ModelAudio, *, sent: Callable[[Packet, float, list[Played]], None]
    ) -> None:
        self._call = call
        self._audio = audio
        self._sent = sent
        self._on_their_way: deque[tuple[Mark, Packet]] = deque()
        self._interruptions = 0
        self._changed = trio.lowlevel.ParkingLot()
        #: When the last packet went out, in seconds of trio's clock.
        self.last_sent_at: float = float("-inf")
        #: How often the call had nothing left to send in the middle of an utterance, because this program was late.
        self.ran_dry: int = 0

    async def run(self) -> None:
        """Speak until cancelled, or until the call is over."""
        with contextlib.suppress(CallEnded):  # whoever waits for the end of the call learns of it
            while True:
                packet = self._audio.next_packet()
                if packet is not None:
                    await self._hand_over(packet)
                elif not self._on_their_way:
                    await self._changed.park()
                while self._on_their_way and (packet is None or len(self._on_their_way) >= PACKETS_AHEAD):
                    await self._on_their_way[0][0].wait()
                    self._settle()
                    if packet is None:
                        break  # more may have come meanwhile

    def wake(self) -> None:
        """More audio has come, or it is known that no more will."""
        self._changed.unpark_all()

    def interrupt(self, now: float, *, responses: Iterable[str] = ()) -> list[Cut]:
        """Fall silent at once; see :meth:`ModelAudio.cut`. Never waits."""
        self._settle()
        self._interruptions += 1
        self._on_their_way.clear()
        self._clear()
        cuts = self._audio.cut(now, responses=responses)
        self._changed.unpark_all()
        return cuts

    @property
    def is_silent(self) -> bool:
        """Whether all that has come has gone out."""
        return not self._on_their_way and self._audio.is_silent

    async def wait_silent(self) -> None:
        """Wait until all that has come has gone out, or was interrupted."""
        await trio.lowlevel.checkpoint()
        while not self.is_silent:
            await self._changed.park()

    async def _hand_over(self, packet: Packet) -> None:
        before = self._interruptions
        await self._call.send_audio(packet.data)
        if self._interruptions != before:
            self._clear()
            return
        self._on_their_way.append((self._call.mark(), packet))

    def _settle(self) -> None:
        """Account for what has gone out."""
        way = self._on_their_way
        was_ahead = len(way) >= PACKETS_AHEAD
        while way and way[0][0].passed is not None:
            _, packet = way.popleft()
            now = trio.current_time()
            self.last_sent_at = now
            self._sent(packet, now, self._audio.sent(packet, now))
        if was_ahead and not way and not self._audio.is_silent:
            self.ran_dry += 1
        self._changed.unpark_all()

    def _clear(self) -> None:
        with contextlib.suppress(CallEnded, CallStateError):  # nothing is queued in a call that is over
            self._call.clear_send_audio_buffer()
