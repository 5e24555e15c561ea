"""Says a model's audio on a call: at the call's pace, and so that it can be stopped in the middle of a word.

Theory of operation
-------------------
The gateway cannot be told to forget audio, and buffers what comes early, so that nothing may be sent before its time.
The call sends one packet per slot of the session's packet clock, from a queue of its own that can be emptied at once.
:class:`Speaker` keeps at most ``PACKETS_AHEAD`` packets there, and is woken by a mark behind each *stretch* of them. A
stretch is a tenth of a second, because to be woken costs more than what there is to do then. Where a model is hardly
faster than it is heard, the last packets go one by one: whether sound or silence follows is left open until then.

:meth:`Speaker.interrupt` empties the queue within one step of the task that calls it: no packet goes out after it, and
what was in the queue was not sent. A stretch that is being handed over in that moment is taken back by the task that
does so, before the clock's next tick.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable

import trio

from agentao_trio.audio import PACKET_MS
from agentao_trio.call import ActiveCall
from agentao_trio.errors import CallEnded, CallStateError
from agentao_trio.media import Mark
from agentao_trio.realtime.playout import Cut, ModelAudio, Played, Stretch

__all__ = ["PACKETS_AHEAD", "Speaker"]

#: Packets of 20 ms that the call may have waiting for their slots, and how many are handed over at a time.
PACKETS_AHEAD, PACKETS_AT_A_TIME = 10, 5


class Speaker:
    """Takes what is to be said from ``audio`` and says it on ``call``.

    ``sent`` is called for each stretch that went out, with the time of its last packet and the parts that ended in it.
    """

    def __init__(
        self, call: ActiveCall, audio: ModelAudio, *, sent: Callable[[Stretch, float, list[Played]], None]
    ) -> None:
        self._call = call
        self._packet_bytes = call.codec.packet_bytes
        self._audio = audio
        self._sent = sent
        self._on_their_way: deque[tuple[Mark, Stretch]] = deque()
        self._handed_over: Stretch | None = None  # one that has no mark yet
        self._ahead = 0  # packets on their way
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
                stretch = self._next_stretch()
                if stretch is not None:
                    await self._hand_over(stretch)
                elif self._on_their_way:
                    await self._on_their_way[0][0].wait()
                    self._settle()
                else:
                    await self._changed.park()

    def _next_stretch(self) -> Stretch | None:
        if self._ahead > PACKETS_AHEAD - PACKETS_AT_A_TIME:
            return None
        # The first goes alone: when it went out is told exactly, and when the others did follows from it.
        return self._audio.next_stretch(PACKETS_AT_A_TIME if self._ahead else 1, hurry=self._ahead <= 1)

    def wake(self) -> None:
        """More audio has come, or it is known that no more will."""
        self._changed.unpark_all()

    def interrupt(self, now: float, *, responses: Iterable[str] = ()) -> list[Cut]:
        """Fall silent at once; see :meth:`ModelAudio.cut`. Never waits."""
        self._settle()
        self._interruptions += 1
        self._settle_partly(self._ahead - self._clear(), now)
        self._on_their_way.clear()
        self._handed_over = None
        self._ahead = 0
        cuts = self._audio.cut(now, responses=responses)
        self._changed.unpark_all()
        return cuts

    @property
    def is_silent(self) -> bool:
        """Whether all that has come has gone out."""
        return not self._ahead and self._audio.is_silent

    async def wait_silent(self) -> None:
        """Wait until all that has come has gone out, or was interrupted."""
        await trio.lowlevel.checkpoint()
        while not self.is_silent:
            await self._changed.park()

    async def _hand_over(self, stretch: Stretch) -> None:
        before = self._interruptions
        self._handed_over = stretch
        self._ahead += self._packets(stretch)
        await self._call.send_audio(stretch.data)
        if self._interruptions != before:
            self._clear()
            return
        self._handed_over = None
        self._on_their_way.append((self._call.mark(), stretch))

    def _settle(self) -> None:
        """Account for the stretches of which all has gone out."""
        way = self._on_their_way
        was_ahead = self._ahead > 1
        while way and way[0][0].passed is not None:
            self._went_out(way.popleft()[1], trio.current_time())
        if was_ahead and not self._ahead and not self._audio.is_silent:
            self.ran_dry += 1
        self._changed.unpark_all()

    def _settle_partly(self, packets: int, now: float) -> None:
        """So many more packets have gone out of the stretches that are left: one in each slot, the last of them now."""
        left = [stretch for _, stretch in self._on_their_way]
        if self._handed_over is not None:
            left.append(self._handed_over)
        for stretch in left:
            if packets <= 0:
                return
            count = min(packets, self._packets(stretch))
            packets -= count
            # No later than now, and the last of all no earlier than a slot ago.
            latest = now - packets * PACKET_MS / 1000
            at = max(self.last_sent_at + count * PACKET_MS / 1000, latest - PACKET_MS / 1000)
            self._went_out(stretch.head(count * self._packet_bytes), min(latest, at))

    def _went_out(self, stretch: Stretch, at: float) -> None:
        self._ahead -= self._packets(stretch)
        self.last_sent_at = at
        self._sent(stretch, at, self._audio.sent(stretch, at))

    def _packets(self, stretch: Stretch) -> int:
        return len(stretch.data) // self._packet_bytes

    def _clear(self) -> int:
        with contextlib.suppress(CallEnded, CallStateError):  # nothing is queued in a call that is over
            return self._call.clear_send_audio_buffer()
        return 0
