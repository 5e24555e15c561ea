"""What ExecuteDialplan and ``default_app`` do to a call that is up (PROTOCOL sections 6 and 9.2).

Where the protocol leaves room, this gateway decides:

* **MUTE** stops what the agent sends from reaching the far end; the agent goes on hearing the far end. ``wire`` adds a
  re-INVITE on a real trunk and nothing here.
* **HOLD** and **MUSIC_ON_HOLD** are one hold per call, whoever asked for it, and UNHOLD lifts it, whoever asked. No
  audio passes meanwhile.
* **PARK** marks the call as waiting for another leg. Its audio goes on, because a client that never asks for anything
  else still expects to hear its call.
* **UNPARK_AND_BRIDGE** lets both agents hear both far ends. When one leg ends, the other stays up.
* **TRANSFER** is accepted at once. If somebody answers at the destination the call ends for the agent with cause 16;
  if nobody does, the call stays as it was.
* **PLAYBACK** replaces what the agent sends until the file is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from agentao_trio import dialplan
from agentao_trio.audio import Codec
from agentao_trio.callstate import OrderState
from agentao_trio.causes import NORMAL_CLEARING, TEMPORARY_FAILURE
from agentao_trio.gateway.calls import Call
from agentao_trio.gateway.commands import Refused, by_the_grammar, invalid, reason
from agentao_trio.gateway.exchange import Exchange
from agentao_trio.gateway.farends import FarEnd, Voice, find_far_end
from agentao_trio.gateway.sound import read_wav
from agentao_trio.legible import quoted
from agentao_trio.messages import DialplanAction, ErrorCode

__all__ = ["CallControl"]


class CallControl:
    """Carries out dialplan actions. ``read_file`` gives the content of a path of the client's, or raises OSError."""

    def __init__(self, exchange: Exchange, read_file: Callable[[str], bytes]) -> None:
        self._exchange = exchange
        self._read_file = read_file
        self._actions: dict[int, Callable[[Call, str, float], str]] = {
            DialplanAction.HANGUP: self._hang_up,
            DialplanAction.PARK: self._park,
            DialplanAction.MUSIC_ON_HOLD: self._hold,
            DialplanAction.PLAYBACK: self._play,
            DialplanAction.UNPARK_AND_BRIDGE: self._bridge,
            DialplanAction.ANSWER: self._answer,
            DialplanAction.AI_BIDIRECTIONAL_STREAM: self._stream,
            DialplanAction.TRANSFER: self._transfer,
            DialplanAction.MUTE: self._mute,
            DialplanAction.UNMUTE: self._unmute,
            DialplanAction.HOLD: self._hold,
            DialplanAction.UNHOLD: self._unhold,
            DialplanAction.SEND_DTMF: self._send_digit,
            DialplanAction.LOOPBACK: self._loop_back,
        }

    def execute(self, call: Call, action: int, arguments: str, now: float) -> str:
        """Do it and return a status word for the reply. Raises :class:`Refused`, and nothing has happened then."""
        with by_the_grammar():
            dialplan.check_arguments(action, arguments, inband=self._exchange.settings.inband_dtmf)
        if not call.is_answered and action not in (DialplanAction.HANGUP, DialplanAction.ANSWER):
            raise invalid(f"the call is {call.state.value}; this needs an answered call")
        return self._actions[action](call, arguments, now)

    def begin(self, call: Call, now: float) -> None:
        """The call was answered: do what its ``default_app`` says. A failure ends it."""
        try:
            self.execute(call, call.default_app, call.default_app_args, now)
        except Refused:
            self._exchange.end(call, TEMPORARY_FAILURE, now)

    def _hang_up(self, call: Call, _: str, now: float) -> str:
        self._exchange.hang_up(call, now)
        return "COMPLETED"

    def _park(self, call: Call, _: str, now: float) -> str:
        call.is_parked = True
        return "PARKED"

    def _hold(self, call: Call, _: str, now: float) -> str:
        if call.state is OrderState.HELD:
            raise invalid("the call is on hold already")
        self._exchange.hold(call, now)
        return "HELD"

    def _unhold(self, call: Call, _: str, now: float) -> str:
        if call.state is not OrderState.HELD:
            raise invalid("the call is not on hold")
        self._exchange.resume(call, now)
        return "ANSWERED"

    def _play(self, call: Call, path: str, now: float) -> str:
        call.leg.play(self.open_wav(path, call.codec))
        self._exchange.wake(call)
        return "PLAYING"

    def open_wav(self, path: str, codec: Codec) -> Iterator[bytes]:
        """The packets of a WAV file on the gateway. Raises :class:`Refused`."""
        try:
            return read_wav(self._read_file(path), codec)
        except (OSError, ValueError) as error:
            raise invalid(f"{quoted(path)} cannot be played: {reason(error)}") from error

    def _bridge(self, call: Call, call_sid: str, now: float) -> str:
        other = self._exchange.calls.get(call_sid)
        if other is None or other.tenant != call.tenant or not other.is_answered:
            raise invalid(f"there is no answered call {quoted(call_sid)} to bridge to")
        if other is call:
            raise invalid("a call cannot be bridged to itself")
        self._exchange.bridge(call, other)
        return "BRIDGED"

    def _answer(self, call: Call, _: str, now: float) -> str:
        if not call.is_answered:
            raise invalid("only the far end can answer this call")
        return "ANSWERED"

    def _stream(self, call: Call, _: str, now: float) -> str:
        call.is_parked = False
        return "STREAMING"

    def _loop_back(self, call: Call, _: str, now: float) -> str:
        if not self._exchange.settings.loopback:
            raise invalid("LOOPBACK is not offered by this gateway")
        call.leg.loopback = True
        return "STREAMING"

    def _mute(self, call: Call, _: str, now: float) -> str:
        call.leg.mute(True)
        return "MUTED"

    def _unmute(self, call: Call, _: str, now: float) -> str:
        call.leg.mute(False)
        return "UNMUTED"

    def _transfer(self, call: Call, destination: str, now: float) -> str:
        if call.is_being_transferred:
            raise invalid("the call is being transferred already")
        target = find_far_end(destination, other=self._exchange.settings.other_numbers)
        if target is None:
            raise Refused(ErrorCode.ERR_INVALID_DESTINATION, f"{quoted(destination)} cannot be reached")
        call.is_being_transferred = True
        self._exchange.after(call, now + self._exchange.settings.transfer_after, self._conclude_transfer, target)
        return "REFERRED"

    def _conclude_transfer(self, call: Call, target: FarEnd, now: float) -> None:
        call.is_being_transferred = False
        if target.answers and target.placed and target.code == ErrorCode.SUCCESS:
            self._exchange.end(call, NORMAL_CLEARING, now)

    def _send_digit(self, call: Call, arguments: str, now: float) -> str:
        digit = dialplan.parse_digit(arguments, inband=self._exchange.settings.inband_dtmf).digit
        call.digits += digit
        if call.far_end.keypad:
            self._press(call, digit, now)
        return "SENT"

    def _press(self, call: Call, digit: str, now: float) -> None:
        match digit:
            case "0":
                call.leg.change_voice(Voice.SILENCE)
            case "1":
                call.leg.change_voice(Voice.TONE)
            case "2":
                call.leg.change_voice(Voice.RECORDING, self._exchange.recording(call.codec))
            case "3":
                call.leg.change_voice(Voice.ECHO)
            case "*":
                self._exchange.hold_for_a_while(call, now)
            case "#":
                self._exchange.end(call, NORMAL_CLEARING, now)
        if call.is_open:
            self._exchange.wake(call)
