"""The person on the telephone, as a script: says, presses, hears, hangs up.

Theory of operation
-------------------
A :class:`ScriptedCaller` is a handset of the embedded gateway: in each 20 ms slot it is given what is heard and asked
what to say. What it heard since the last :meth:`ScriptedCaller.hears` succeeded is kept (a minute at most), so that the
script may do one thing after the other and still miss nothing. What is waited for is looked for in that first, and then
in each packet as it comes.

After the answer, and after whatever it says, its telephone sends silence for some seconds, so that detectors notice a
pause; then it sends nothing more, as telephones with discontinuous transmission do, so that long pauses cost no time.

A failed expectation is an AssertionError, which is what a test wants.
"""

from __future__ import annotations

import math
import os
import struct
from collections import deque
from collections.abc import Callable
from pathlib import Path

import attrs
import trio

from agentao_trio.audio import PACKET_MS, Codec, Packetizer, from_pcm16, to_pcm16
from agentao_trio.detect import SpeechStarted, ToneDetector, ToneStarted, VoiceActivityDetector
from agentao_trio.gateway import Gateway
from agentao_trio.gateway.calls import Call
from agentao_trio.gateway.sound import Packet, read_wav

__all__ = ["ScriptedCaller", "Silence", "Speech", "Tone"]

#: Seconds of what was heard that are kept.
_MEMORY = 60.0
#: Seconds until a condition is asked again though nothing has changed. Where it takes much longer, this program itself
#: was held up: what it did not listen to was no silence, and is not counted against the other side.
_ASK_AGAIN, _HELD_UP = 0.1, 0.2
#: The highest 16-bit sample that still is silence: about -46 dB below the loudest.
_SILENT = 160
#: A key: how long it sounds, and how long until the next.
_KEY_ON, _KEY_OFF = 0.1, 0.1
_ROWS, _COLUMNS, _KEYS = (697, 770, 852, 941), (1209, 1336, 1477, 1633), "123A456B789C*0#D"
_KEY_AMPLITUDE = 6_000
#: Slots of silence that are sent: five seconds after the answer, two after speech.
_PAUSE_BEFORE, _PAUSE_AFTER = 250, 100


@attrs.frozen
class Tone:
    """A steady tone of ``hz``, give or take 20."""

    hz: float


@attrs.frozen
class Speech:
    """Somebody speaking, or anything as loud and restless as that."""


@attrs.frozen
class Silence:
    """Nothing louder than a quiet line for so many ``seconds``."""

    seconds: float = 1.0


class ScriptedCaller:
    """A caller, or somebody who is called. Made by :class:`SimulatedGateway`.

    Cancelling what waits for something changes nothing: the call goes on, and what was heard counts for the next wait.
    """

    def __init__(self, gateway: Gateway, number: str) -> None:
        #: The number it calls from, or is called at.
        self.number = number
        #: The call, once there is one.
        self.call_sid: str = ""
        self._gateway = gateway
        self._codec = Codec.PCMU
        self._to_say: deque[bytes] = deque()
        self._speaking = False
        self._pause = _PAUSE_BEFORE
        self._heard = bytearray()
        self._heard_ever = 0
        self._loud_at = -math.inf
        self._attentive_since = -math.inf  # without having been held up
        self._call: Call | None = None
        self._cause: int | None = None
        self._answered = False
        self._changed = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        state = "answered" if self._answered else "not answered"
        if self._cause is not None:
            state = f"over with cause {self._cause}"
        return f"<ScriptedCaller {self.number}, call {self.call_sid or '(none)'}, {state}>"

    # -- what the gateway tells it ----------------------------------------------------------------------------------

    def answered(self, call_sid: str, codec: Codec) -> None:
        """See :class:`~agentao_trio.gateway.Handset`, as for the other three."""
        self.call_sid = call_sid
        self._call = self._gateway.model.calls[call_sid]
        self._codec = codec
        self._answered = True
        self._loud_at = trio.current_time()
        self._changed.unpark_all()

    def hear(self, packet: Packet | None) -> None:
        """For the gateway: 20 ms of what the agent says, None for nothing."""
        payload = self._codec.silence if packet is None else packet.payload
        self._heard += payload
        self._heard_ever += len(payload)
        excess = len(self._heard) - round(_MEMORY * 1000 / PACKET_MS) * self._codec.packet_bytes
        if excess > 0:
            del self._heard[:excess]
        if _is_loud(to_pcm16(payload, self._codec)):
            self._loud_at = trio.current_time()
        self._changed.unpark_all()

    def say(self) -> bytes | None:
        """For the gateway: the next 20 ms of what this caller says, None for nothing."""
        if self._to_say:
            self._pause = _PAUSE_AFTER
            self._changed.unpark_all()
            return self._to_say.popleft()
        self._pause -= 1
        return self._codec.silence if self._pause >= 0 else None

    def ended(self, cause: int) -> None:
        """For the gateway: the call is over, with this Q.850 cause."""
        self._cause = cause
        self._changed.unpark_all()

    # -- the script -------------------------------------------------------------------------------------------------

    @property
    def digits(self) -> str:
        """The keys the agent has sent so far, by :meth:`ActiveCall.send_dtmf`."""
        return "" if self._call is None else self._call.digits

    async def is_answered(self, *, within: float = 30.0) -> None:
        """Wait until the call is answered. Raises AssertionError when it ends first, or takes too many seconds."""
        await self._expect("an answer", lambda: self._answered, within)

    async def says(self, sound: str | os.PathLike[str] | bytes) -> None:
        """Say something to the agent: the path of a WAV file, or audio in the call's codec.

        Waits for the answer first. Returns when all is said, or when the call ends in the middle of it; cancelled, it
        falls silent. Raises AssertionError when the call is not answered, OSError and ValueError for a file that cannot
        be played, and :class:`trio.BusyResourceError` while it is saying something else.
        """
        await self.is_answered()
        await self._say(self._packets(sound))

    async def presses(self, keys: str) -> None:
        """Press keys (``0`` to ``9``, ``*``, ``#``, ``A`` to ``D``): 100 ms of tones for each, in the audio.

        As :meth:`says`. Raises ValueError for a key that is none.
        """
        if unknown := set(keys) - set(_KEYS):
            raise ValueError(f"there is no key {min(unknown)!r} on a telephone")
        await self.is_answered()
        pcm = b"".join(_key(key, self._codec.clock_rate) for key in keys)
        await self._say(Packetizer(self._codec).feed(from_pcm16(pcm, self._codec)))

    async def hears(
        self, what: Tone | Speech | Silence | str | os.PathLike[str] | bytes, *, within: float = 10.0
    ) -> None:
        """Wait until the caller hears ``what``: a tone, speech, silence, or exactly the sound of a file or some bytes.

        What was heard since the last ``hears`` counts, too. Raises AssertionError when it is not heard ``within`` so
        many seconds (in which silence has to begin), or the call ends before.
        """
        await self.is_answered(within=within)
        if isinstance(what, Silence):
            seconds = what.seconds

            def is_silent() -> bool:
                return trio.current_time() >= max(self._loud_at, self._attentive_since) + seconds

            await self._expect(str(what), is_silent, within + seconds)
        else:
            heard = self._listener(what)
            examined = self._heard_ever - len(self._heard)

            def is_heard() -> bool:
                nonlocal examined
                kept_from = self._heard_ever - len(self._heard)
                news, examined = bytes(self._heard[max(0, examined - kept_from) :]), self._heard_ever
                return heard(news)

            await self._expect(_described(what), is_heard, within)
        self._heard.clear()

    async def hangs_up(self, cause: int = 16) -> None:
        """End the call, with a Q.850 cause. Does nothing when it is over."""
        await trio.lowlevel.checkpoint()
        if self._cause is None and self.call_sid:
            self._gateway.hang_up(self.call_sid, cause)

    async def is_hung_up(self, *, within: float = 10.0) -> int:
        """Wait until the call is over, and return the Q.850 cause. Raises AssertionError when it takes longer."""
        with trio.move_on_after(within):
            while self._cause is None:
                await self._changed.park()
        assert self._cause is not None, f"the call with {self.number} was not ended within {within:g} s"
        return self._cause

    # -- inside -----------------------------------------------------------------------------------------------------

    def _packets(self, sound: str | os.PathLike[str] | bytes) -> list[bytes]:
        if isinstance(sound, bytes):
            packetizer = Packetizer(self._codec)
            packets, rest = packetizer.feed(sound), packetizer.flush()
            return packets if rest is None else [*packets, rest]
        return list(read_wav(Path(sound).read_bytes(), self._codec))

    async def _say(self, packets: list[bytes]) -> None:
        if self._speaking:
            raise trio.BusyResourceError(f"{self.number} is saying something already")
        self._speaking = True
        try:
            self._to_say.extend(packets)
            if self._cause is None:
                self._gateway.speak(self.call_sid)
            while self._to_say and self._cause is None:
                await self._changed.park()
        finally:
            self._to_say.clear()
            self._speaking = False

    def _listener(self, what: Tone | Speech | str | os.PathLike[str] | bytes) -> Callable[[bytes], bool]:
        """A function that is given what is heard, bit by bit, and tells whether that was it."""
        rate, codec = self._codec.clock_rate, self._codec
        match what:
            case Tone(hz):
                tones = ToneDetector(rate=rate, frequencies=[hz])
                return lambda news: any(isinstance(each, ToneStarted) for each in tones.feed(to_pcm16(news, codec)))
            case Speech():
                voice = VoiceActivityDetector(rate=rate)
                return lambda news: any(isinstance(each, SpeechStarted) for each in voice.feed(to_pcm16(news, codec)))
        wanted, recent = b"".join(self._packets(what)), bytearray()

        def is_this(news: bytes) -> bool:
            recent.extend(news)
            if wanted in recent:
                return True
            del recent[: -len(wanted)]
            return False

        return is_this

    async def _expect(self, what: str, condition: Callable[[], bool], within: float) -> None:
        """Wait for the condition, which is asked again whenever something changes, and every tenth of a second."""
        await trio.lowlevel.checkpoint()
        asked_at = trio.current_time()
        give_up_at = asked_at + within
        while not condition():
            if self._cause is not None:
                raise AssertionError(f"{self.number} waited for {what}, and the call ended with cause {self._cause}")
            if asked_at >= give_up_at:
                raise AssertionError(f"{self.number} waited for {what} in vain for {within:g} s")
            with trio.move_on_at(min(give_up_at, asked_at + _ASK_AGAIN)):
                await self._changed.park()
            now = trio.current_time()
            if now - asked_at > _HELD_UP:
                give_up_at += now - asked_at
                self._attentive_since = now
            asked_at = now


def _described(what: object) -> str:
    return f"{len(what)} bytes of audio" if isinstance(what, bytes) else str(what)


def _is_loud(pcm: bytes) -> bool:
    return any(abs(level) > _SILENT for (level,) in struct.iter_unpack("<h", pcm))


def _key(key: str, rate: int) -> bytes:
    row, column = _ROWS[_KEYS.index(key) // 4], _COLUMNS[_KEYS.index(key) % 4]
    turns = 2 * math.pi * row / rate, 2 * math.pi * column / rate
    levels = (round(_KEY_AMPLITUDE * sum(math.sin(turn * n) for turn in turns)) for n in range(int(_KEY_ON * rate)))
    return b"".join(struct.pack("<h", level) for level in levels) + bytes(2 * int(_KEY_OFF * rate))
