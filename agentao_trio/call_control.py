"""What an :class:`~agentao_trio.call.ActiveCall` can have the gateway do: dialplan actions, and conferences.

Conferences
-----------
:meth:`CallControl.connect` dials a second leg, parks it, and bridges it with this call when it answers: both far ends
hear each other, and the agent hears both. Each leg has an uplink of its own, so who hears the agent is a matter of
which of the two its packets go out on: both (*barge*, as it begins), the second leg alone (*whisper*: coaching a human
agent whom the caller must not hear being coached), or neither (*spy*).

Where a state does not allow a method it raises :class:`CallStateError`; for an argument the protocol does not allow,
:class:`LocalProtocolError` (nothing is sent in either case). All of them raise :class:`CommandRejected` when the
gateway refuses and :class:`CommandTimeout` when it does not answer. Cancelled, a command may or may not have been
carried out.
"""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Protocol, Self

import trio

from agentao_trio import messages
from agentao_trio.callstate import CallState, Command
from agentao_trio.causes import NO_ANSWER
from agentao_trio.dialplan import check_arguments
from agentao_trio.errors import (
    AgentaoError,
    CallConnectFailed,
    CallEnded,
    CallError,
    CommandError,
    LocalProtocolError,
)
from agentao_trio.events import CallEvent, ClientEvent
from agentao_trio.handlers import CallHandlers
from agentao_trio.hub import Hub
from agentao_trio.media import Uplink, UplinkStream
from agentao_trio.messages import DialplanAction, MethodId
from agentao_trio.pacing import PacketClock

__all__ = ["CallControl", "CallPort", "before"]


class CallPort(Protocol):
    """What a call needs of its session."""

    @property
    def clock(self) -> PacketClock: ...
    @property
    def hub(self) -> Hub: ...
    async def request(self, method: MethodId, message: Any) -> Any: ...
    def open_uplink(self) -> UplinkStream | None: ...
    async def originate(self, to: str, *, trunk_id: str, call_from: str = "", default_app: DialplanAction) -> Any: ...
    def retire(self, call: Any) -> None: ...
    def release(self, call: Any) -> None: ...
    def start(self, task: Callable[[], Awaitable[None]]) -> None: ...
    def handler_failed(self, call: Any, event: CallEvent | ClientEvent, error: Exception) -> None: ...


class CallControl(abc.ABC):
    """The commands of one call that others carry out. Cancelled, a command may or may not have been carried out."""

    call_sid: str
    callee: str
    _port: CallPort
    _state: CallState
    _uplink: Uplink
    _handlers: CallHandlers
    _answered: trio.Event
    _over: trio.Event
    _heard_at: float
    trunk_id: str
    _muted: bool
    _muted_on_wire: bool
    _released: bool
    #: The second leg of a conference, while there is one.
    _leg: Self | None

    @abc.abstractmethod
    def _check(self, command: Command) -> None:
        """Raise unless ``command`` is possible now."""

    @abc.abstractmethod
    async def answer(self) -> None:
        """Accept an inbound call."""

    @abc.abstractmethod
    async def hangup(self) -> None:
        """End the call."""

    @abc.abstractmethod
    async def wait_answered(self) -> None:
        """Wait for the answer."""

    @abc.abstractmethod
    async def __aenter__(self) -> Self: ...

    @abc.abstractmethod
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    @abc.abstractmethod
    def _leave(self) -> None:
        """The agent has left; the call goes on without it."""

    # -- ExecuteDialplan, PROTOCOL section 9.2 ----------------------------------------------------------------------

    async def hold(self) -> None:
        """Put the far end on hold; CHANNEL_HOLD tells when it is."""
        await self._execute(Command.HOLD, DialplanAction.HOLD)

    async def unhold(self) -> None:
        """Take the far end off hold; CHANNEL_RESUME tells when it is."""
        await self._execute(Command.UNHOLD, DialplanAction.UNHOLD)

    async def music_on_hold(self) -> None:
        """Put the far end on hold with the gateway's music."""
        await self._execute(Command.MUSIC_ON_HOLD, DialplanAction.MUSIC_ON_HOLD)

    async def mute(self, *, wire: bool = False) -> None:
        """Stop the gateway from sending our audio to the far end; ``wire`` also tells the far end (recvonly)."""
        await self._execute(Command.MUTE, DialplanAction.MUTE, "wire" if wire else "")
        self._muted, self._muted_on_wire = True, wire

    async def unmute(self) -> None:
        """Undo :meth:`mute`, on the wire too where the mute was."""
        await self._execute(Command.UNMUTE, DialplanAction.UNMUTE, "wire" if self._muted_on_wire else "")
        self._muted = self._muted_on_wire = False

    async def transfer(self, to: str) -> None:
        """Hand the far end over to ``to``, an E.164 number or SIP URI, by a blind REFER.

        Many carriers ignore a REFER: that the command succeeded does not mean that the transfer did.
        """
        await self._execute(Command.TRANSFER, DialplanAction.TRANSFER, to)

    async def send_dtmf(self, digits: str, *, duration_ms: int = 200, mode: str = "rfc2833") -> None:
        """Send ``digits`` (0-9, ``*``, ``#``, A-D) one command each, spaced by at least ``duration_ms``.

        ``mode`` is ``"rfc2833"`` or ``"info"``. All digits are checked before the first is sent; cancelled, those sent
        so far stay sent.
        """
        self._check(Command.SEND_DTMF)
        if not isinstance(digits, str):
            raise LocalProtocolError(f"digits are text (str), not {type(digits).__name__}")
        arguments = [f"{digit}:{mode}:{duration_ms}" for digit in digits]
        for argument in arguments:
            check_arguments(DialplanAction.SEND_DTMF, argument)
        next_at = trio.current_time()
        for argument in arguments:
            await trio.sleep_until(next_at)
            next_at = trio.current_time() + duration_ms / 1000
            await self._execute(Command.SEND_DTMF, DialplanAction.SEND_DTMF, argument)

    async def park(self) -> None:
        """Leave the far end waiting at the gateway."""
        await self._execute(Command.PARK, DialplanAction.PARK)

    async def playback(self, path: str) -> None:
        """Let the gateway play a .wav of its own, named by an absolute path there."""
        await self._execute(Command.PLAYBACK, DialplanAction.PLAYBACK, path)

    async def bridge(self, other: CallControl) -> None:
        """Join this far end and that of ``other``, each hearing the other."""
        if not isinstance(other, CallControl):
            raise LocalProtocolError(f"bridge() takes another call, not {type(other).__name__}")
        await self._execute(Command.BRIDGE, DialplanAction.UNPARK_AND_BRIDGE, other.call_sid)

    async def _execute(self, command: Command, action: DialplanAction, app_args: str = "") -> None:
        self._check(command)
        check_arguments(action, app_args)
        reply = await self._port.request(
            MethodId.ExecuteDialplan,
            messages.ExecuteDialplanRequest(call_sid=self.call_sid, action=action, app_args=app_args),
        )
        if reply is not None:
            self._heard_at = trio.current_time()  # only a call that exists can be controlled

    # -- conferences ------------------------------------------------------------------------------------------------

    async def connect(self, to: str = "", *, ring_time_seconds: float = 30.0, trunk_id: str = "") -> Self:
        """Bring ``to`` into the call: a conference of the caller, the second leg and this agent, who is heard by both.

        Without ``to`` it is the number that was called originally. The second leg may ring for ``ring_time_seconds``;
        an inbound call that is not answered yet is answered when the second leg has. ``trunk_id`` is the call's own
        unless given. Returns the second leg, on which the call's owner can do what can be done to any call; it is hung
        up when this call ends, and this call is ANSWERED again when the leg ends.

        Raises :class:`CallConnectFailed`, with the Q.850 cause when the second leg cannot be had, and without one when
        this call ends first or another second leg is brought in first; the state is not changed by it. Failed or
        cancelled, the second leg is hung up.
        """
        self._check(Command.CONNECT)
        destination = to or self.callee
        if not destination:
            raise LocalProtocolError("connect() needs a number: who was called originally is not known")
        if self._leg is not None:
            raise LocalProtocolError("this call is a conference already; it can have one second leg")
        leg: Self | None = None
        joined = False
        try:
            leg = await self._port.originate(
                destination, trunk_id=trunk_id or self.trunk_id, default_app=DialplanAction.PARK
            )
            await self._join(leg, ring_time_seconds)
            joined = True
        except (CallError, CommandError) as error:
            cause = error.q850_cause if isinstance(error, (CallEnded, CallConnectFailed)) else 0
            failure = CallConnectFailed(
                f"{destination} could not be brought in: {error}", call_sid=self.call_sid, q850_cause=cause
            )
            self._handlers.signal(CallEvent.CALL_CONNECT_FAILED, failure)
            raise failure from error
        finally:
            if leg is not None and not joined:
                async with leg:
                    pass  # hangs up
        return leg

    async def _join(self, leg: Self, ring_time_seconds: float) -> None:
        with trio.move_on_after(ring_time_seconds) as ringing:
            await before(self._over, leg._answered.wait)
        if ringing.cancelled_caught:
            raise CallConnectFailed(
                f"nobody answered within {ring_time_seconds:g} s", call_sid=self.call_sid, q850_cause=NO_ANSWER
            )
        self._check_room_for_a_leg()
        await leg.wait_answered()  # or it raises why the leg ended
        if self._state is CallState.PENDING:
            await self.answer()
        await leg._execute(Command.BRIDGE, DialplanAction.UNPARK_AND_BRIDGE, self.call_sid)
        self._check_room_for_a_leg()
        self._leg = leg
        self._state = CallState.CONNECTED
        self._uplink.outlets = (self._uplink, leg._uplink)
        self._handlers.signal(CallEvent.CALL_CONNECTED, leg)
        self._port.start(self._watch_conference)

    def _check_room_for_a_leg(self) -> None:
        """Raise where this call ended, or became a conference, while a second leg was waited for."""
        if self._over.is_set():
            raise CallConnectFailed("the caller hung up, or this call was left", call_sid=self.call_sid)
        if self._leg is not None:
            raise CallConnectFailed("another second leg was brought in first", call_sid=self.call_sid)

    async def _watch_conference(self) -> None:
        """A conference ends with either of its calls: with the leg alone, or with all of it."""
        leg = self._leg
        assert leg is not None
        await before(self._over, leg._over.wait)
        self._leg = None
        self._uplink.outlets = None
        if self._state is CallState.CONNECTED:
            self._state = CallState.ANSWERED
        elif not leg._over.is_set():
            async with leg:
                pass  # hangs up, again where it has to be

    async def whisper(self) -> None:
        """From now on only the second leg hears the agent."""
        self._be_heard_by(Command.WHISPER, caller=False, leg=True)
        await trio.lowlevel.checkpoint()

    async def barge(self) -> None:
        """From now on the caller and the second leg hear the agent."""
        self._be_heard_by(Command.BARGE, caller=True, leg=True)
        await trio.lowlevel.checkpoint()

    async def spy(self) -> None:
        """From now on nobody hears the agent; it hears both."""
        self._be_heard_by(Command.SPY, caller=False, leg=False)
        await trio.lowlevel.checkpoint()

    def _be_heard_by(self, command: Command, *, caller: bool, leg: bool) -> None:
        self._check(command)
        assert self._leg is not None  # or the state would not be CONNECTED
        self._uplink.outlets = (self._uplink,) * caller + (self._leg._uplink,) * leg

    async def close(self) -> None:
        """The agent leaves. A conference goes on between its two parties; a call with nobody else in it is hung up."""
        self._check(Command.CLOSE)
        leg = self._leg
        if leg is None:
            await self.hangup()
        else:
            leg._leave()
            self._leave()
            await trio.lowlevel.checkpoint()

    def release(self) -> None:
        """Leave the call to others: it is neither answered nor hung up, and DISCONNECTED as far as we are concerned.

        For a call that came in and is another worker's. Harmless when the call is over.
        """
        if not self._over.is_set():
            self._released = True
            self._leave()

    @property
    def released(self) -> bool:
        """Whether this call was left to others, see :meth:`release`."""
        return self._released

    async def disconnect(self) -> None:
        """End the call for everybody: this one and, in a conference, the second leg.

        Cancelled in between, the second leg goes on.
        """
        self._check(Command.DISCONNECT)
        leg = self._leg
        await self.hangup()
        if leg is not None:
            await leg.hangup()


async def before(event: trio.Event, command: Callable[[], Awaitable[Any]], *, grace: float = 0.0) -> Any:
    """Await ``command()``, but no longer than ``grace`` seconds after ``event``; None where the event came first.

    Gateways need not answer a command whose effect is told by events (PROTOCOL section 3). Raises what the command
    raises; where this is cancelled, so is the command.
    """
    reply: Any = None
    failure: AgentaoError | None = None
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            await event.wait()
            nursery.cancel_scope.deadline = trio.current_time() + grace

        nursery.start_soon(watch)
        try:
            reply = await command()
        except AgentaoError as error:
            failure = error  # carried out of the nursery, which would wrap it in a group
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return reply
