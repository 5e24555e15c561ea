"""The telephone exchange inside the gateway: calls and their lives, who is told of them, and the audio of each slot.

Theory of operation
-------------------
Nothing here waits or looks at a clock. Everything that happens is a method call with the time it happens at, in seconds
of one steady clock; what is to happen later is a timer, and :meth:`Exchange.advance` runs those that are due. What
should leave the gateway is collected as *effects*, in order, for the server to take and carry out. A call belongs to
the exchange and not to the connection that placed it, so that a connection may be lost and another take its place.

A call's life is that of :mod:`agentao_trio.callstate`. There is one method for each step, each emits the step's event,
and nothing else does; commands that make no sense in a state are refused before they come here.

*Slots.* An answered call that may have something to say has a place on the packet clock, which calls :meth:`slot` every
20 ms. When it has been silent for half a second it gives the place back, and :class:`Speak` asks for one again.

Bounds: open calls, client ids, subscriptions of one connection, and finished calls whose ids are remembered; each of
them counted when it bites. Events and audio have their bounds where they are queued.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from agentao_trio.audio import Codec
from agentao_trio.callstate import OrderState
from agentao_trio.causes import CALL_REJECTED, NO_ANSWER, NORMAL_CLEARING, TEMPORARY_FAILURE
from agentao_trio.gateway.calls import Call, Supervisor
from agentao_trio.gateway.effects import Counters, Effect, Resume, SendAudio, SendEvents, Speak
from agentao_trio.gateway.farends import FarEnd, Voice
from agentao_trio.gateway.fault import Fault
from agentao_trio.gateway.leg import Dice, Leg, add_voices
from agentao_trio.gateway.settings import GatewaySettings
from agentao_trio.gateway.sound import Packet, mix, read_wav
from agentao_trio.gateway.subscriptions import Peer, Subscription
from agentao_trio.gateway.timers import Timers
from agentao_trio.legible import quoted
from agentao_trio.messages import AudioFrame, CallEvent, EventType

__all__ = ["Exchange"]

log: logging.Logger = logging.getLogger("agentao_trio.gateway")

#: The tenant of a connection that has to say who it is, and has not. No call is this tenant's.
NOBODY = ""

_MAX_SUBSCRIPTIONS_OF_A_PEER = 16
_MAX_FINISHED = 10_000


class Exchange:
    """Calls, subscriptions and timers of one gateway. ``epoch`` + ``now`` is the wall-clock time in Unix seconds."""

    def __init__(
        self,
        *,
        settings: GatewaySettings,
        dice: Dice,
        epoch: float,
        recording: bytes,
        faults: Fault | None = None,
    ) -> None:
        self.settings = settings
        self._faults = faults
        self.timers: Timers = Timers()
        self.counters: Counters = Counters()
        #: Open calls by call_sid.
        self.calls: dict[str, Call] = {}
        self._dice = dice
        self._epoch = epoch
        self._recording = recording
        self._recordings: dict[Codec, tuple[bytes, ...]] = {}
        self._finished: OrderedDict[str, float] = OrderedDict()
        # By tenant and client id. Connections that never said who they are have one each, by their number.
        self._subscriptions: OrderedDict[tuple[str, str | int], Subscription] = OrderedDict()
        self._effects: list[Effect] = []
        self._numbers = 0

    def ms(self, now: float) -> int:
        """Wall-clock milliseconds."""
        return int((self._epoch + now) * 1000)

    def next_number(self) -> int:
        """A number that nothing else has had."""
        self._numbers += 1
        return self._numbers

    def take_effects(self) -> list[Effect]:
        """What is to be sent since the last time, in order."""
        effects, self._effects = self._effects, []
        return effects

    def advance(self, now: float) -> None:
        """Let everything happen that was due by ``now``."""
        self.timers.run(now)

    # -- who is told ----------------------------------------------------------------------------------------------

    def connected(self) -> Peer:
        """A connection has been accepted. Its tenant is the settings', or nobody, until a token says otherwise."""
        return Peer(self.next_number(), self.settings.tenant if self.settings.authentication == "open" else NOBODY)

    def disconnected(self, peer: Peer, now: float) -> None:
        """A connection is gone. Its calls go on; unless somebody resumes them within the event window, they end."""
        for call in self.calls.values():
            if call.supervisors.pop(peer, None) is not None:
                call.leg.observed = bool(call.supervisors)
        nameless = self._subscriptions.pop((peer.tenant, peer.number), None)
        away = (
            peer.subscriptions
            if nameless is None or nameless in peer.subscriptions
            else [*peer.subscriptions, nameless]
        )
        for subscription in away:
            subscription.peer = None
            subscription.away_since = now
            subscription.connection_lost(now)
            self.timers.at(now + self.settings.event_window, partial(self._give_up, subscription, now))
        peer.subscriptions.clear()

    def change_tenant(self, peer: Peer, tenant: str, now: float) -> None:
        """The connection speaks for another tenant from now on, to which its subscriptions go along.

        What it had with the former tenant is left as if the connection were gone.
        """
        left = tuple(peer.subscriptions)
        self.disconnected(peer, now)
        self._effects += [Resume(each, peer) for each in left]
        peer.tenant = tenant
        for each in left:
            self.subscribe(peer, each.client_id, now)

    def _give_up(self, subscription: Subscription, away_since: float, now: float) -> None:
        if subscription.peer is None and subscription.away_since == away_since:
            for call in [call for call in self.calls.values() if call.listener is subscription]:
                self.end(call, TEMPORARY_FAILURE, now)

    def subscription_of(self, peer: Peer, client_id: str = "") -> Subscription:
        """Where events for ``client_id`` go; without one, the client id that the connection subscribed with last."""
        if not client_id and peer.subscriptions:
            return peer.subscriptions[-1]
        return self._subscription(peer, client_id)

    def _subscription(self, peer: Peer, client_id: str) -> Subscription:
        key = (peer.tenant, client_id or peer.number)
        subscription = self._subscriptions.get(key)
        if subscription is None:
            self._make_room()
            subscription = self._subscriptions[key] = Subscription(
                tenant=peer.tenant,
                client_id=client_id,
                window=self.settings.event_window,
                grace=self.settings.replay_grace,
                max_entries=self.settings.max_events,
                dropped=self._events_dropped,
                meddler=self._faults,
            )
        self._subscriptions.move_to_end(key)
        return subscription

    def _make_room(self) -> None:
        if len(self._subscriptions) >= self.settings.max_clients:
            away = next((key for key, each in self._subscriptions.items() if each.peer is None), None)
            forgotten = (
                self._subscriptions.pop(away) if away is not None else self._subscriptions.popitem(last=False)[1]
            )
            if forgotten.peer is not None:
                forgotten.peer.subscriptions.remove(forgotten)
                forgotten.peer = None
            self.counters.subscriptions_forgotten += 1

    def _events_dropped(self, count: int) -> None:
        self.counters.events_dropped += count

    def subscribe(self, peer: Peer, client_id: str, now: float) -> None:
        """``peer`` gets the events and the audio of ``client_id`` from now on, and the events it has missed.

        It is also told of the inbound calls that wait, whenever they came in.
        """
        subscription = self._subscription(peer, client_id)
        previous = subscription.peer
        if previous is peer:
            return
        if previous is not None:
            previous.subscriptions.remove(subscription)
        subscription.expire(now)
        subscription.peer = peer
        peer.subscriptions.append(subscription)
        if len(peer.subscriptions) > _MAX_SUBSCRIPTIONS_OF_A_PEER:
            peer.subscriptions.pop(0).peer = None
            self.counters.subscriptions_forgotten += 1
        nameless = self._subscriptions.get((peer.tenant, peer.number))
        if nameless is not None and nameless is not subscription and nameless.peer is None:
            # Its requests overtook its subscription on the way here.
            del self._subscriptions[peer.tenant, peer.number]
            self._replace(nameless, subscription)
        if self._faults is not None:
            others = [each for each in self._subscriptions.values() if each is not subscription]
            subscription.rearrange(self._faults.waiting(subscription, subscription.entries, others))
        self._effects.append(Resume(subscription, previous))
        for call in self.calls.values():
            if call.is_waiting and call.tenant == peer.tenant:
                self.join(call, subscription, now)  # it may be the one to answer

    def _replace(self, old: Subscription, new: Subscription) -> None:
        new.adopt(old)
        for call in self.calls.values():
            call.audience = [new if each is old else each for each in call.audience]
            if call.listener is old:
                call.listener = new

    @property
    def subscription_count(self) -> int:
        """How many clients are remembered, those that are away included."""
        return len(self._subscriptions)

    @property
    def events_waiting(self) -> int:
        """Events that somebody is not known to have."""
        return sum(len(each) for each in self._subscriptions.values())

    def subscriptions_of(self, tenant: str, now: float) -> list[Subscription]:
        """The tenant's subscribers: those who are here, and those who may still come back for their events."""
        window = self.settings.event_window
        return [
            each
            for each in self._subscriptions.values()
            if each.tenant == tenant and (each.peer is not None or now - each.away_since < window)
        ]

    def join(self, call: Call, subscription: Subscription, now: float) -> None:
        """The subscription is told of the call as well from now on, beginning with its creation."""
        if subscription not in call.audience:
            assert call.creation is not None  # only a call that was created can be joined
            call.audience.append(subscription)
            subscription.add(call.creation, now)
            self._effects.append(SendEvents(subscription))

    def _emit(self, call: Call, event_type: EventType, now: float, cause: int = 0) -> None:
        event = call.event(event_type, self.ms(now), cause)
        self.counters.events_emitted += 1
        direction = "from" if call.inbound else "to"
        log.info("call %s %s %s: %s", quoted(call.call_sid), direction, call.far_end.name, _in_words(event))
        for subscription in call.audience:
            subscription.add(event, now)
            self._effects.append(SendEvents(subscription))

    # -- a call's life --------------------------------------------------------------------------------------------

    def new_leg(self, call_sid: str, far_end: FarEnd, codec: Codec) -> Leg:
        """A leg with this exchange's dice and bounds."""
        return Leg(
            call_sid=call_sid,
            far_end=far_end,
            codec=codec,
            dice=self._dice,
            max_uplink_packets=self.settings.max_uplink_packets,
            max_payload=self.settings.max_payload,
        )

    def has_room(self) -> bool:
        """Whether one more call may be open."""
        return len(self.calls) < self.settings.max_calls

    def is_known(self, call_sid: str) -> bool:
        """Whether a call with this id is open, or was a little while ago."""
        return call_sid in self.calls or call_sid in self._finished

    def create(self, call: Call, now: float) -> None:
        """The channel exists: CHANNEL_CREATE, and from here on the far end decides."""
        self.calls[call.call_sid] = call
        self.counters.calls_placed += 1
        self._emit(call, EventType.CHANNEL_CREATE, now)
        settings, far_end = self.settings, call.far_end
        if call.inbound:
            self.after(call, now + settings.patience, self.end, NO_ANSWER)
        elif far_end.answers:
            self.after(call, now + settings.ring, self.answer)
        else:
            waits = {18: settings.no_response_after, 19: settings.no_answer_after}
            self.after(call, now + waits.get(far_end.cause, settings.busy_after), self.end, far_end.cause)

    def answer(self, call: Call, now: float) -> None:
        """Somebody picked up: CHANNEL_ANSWER, then whatever the far end and the default action do."""
        call.cancel_timers()
        call.leg.start(self.recording(call.codec) if call.far_end.voice is Voice.RECORDING else ())
        self.counters.calls_answered += 1
        self._emit(call, EventType.CHANNEL_ANSWER, now)
        if call.leg.handset is not None:
            call.leg.handset.answered(call.call_sid, call.codec)
        self.wake(call)
        settings, far_end = self.settings, call.far_end
        if call.max_duration_ms:
            self.after(call, now + call.max_duration_ms / 1000, self.end, NORMAL_CLEARING)
        if far_end.hangs_up and far_end.answers:
            self.after(call, now + settings.talk, self.end, far_end.cause)
        if far_end.holds:
            self.after(call, now + settings.hold_after, self.hold_for_a_while)
        if call.on_answer is not None:
            call.on_answer(call, now)

    def after(self, call: Call, when: float, step: Callable[..., None], *arguments: object) -> None:
        """Have ``step(call, *arguments, now)`` done at ``when`` unless the call has ended by then."""
        call.after(self.timers, when, partial(step, call, *arguments))

    def recording(self, codec: Codec) -> tuple[bytes, ...]:
        """What a far end plays, as packets of ``codec``."""
        if codec not in self._recordings:
            self._recordings[codec] = tuple(read_wav(self._recording, codec))
        return self._recordings[codec]

    def hold(self, call: Call, now: float) -> None:
        """CHANNEL_HOLD; no audio passes until :meth:`resume`. The call must be answered and not held."""
        call.leg.hold()
        self._emit(call, EventType.CHANNEL_HOLD, now)

    def resume(self, call: Call, now: float) -> None:
        """CHANNEL_RESUME. The call must be held."""
        call.leg.resume()
        self._emit(call, EventType.CHANNEL_RESUME, now)
        self.wake(call)

    def hold_for_a_while(self, call: Call, now: float) -> None:
        """The far end presses hold, and presses it again later, unless somebody else was quicker."""
        if call.state is OrderState.ANSWERED:
            self.hold(call, now)
            self.after(call, now + self.settings.hold_for, self._resume_if_held)

    def _resume_if_held(self, call: Call, now: float) -> None:
        if call.state is OrderState.HELD:
            self.resume(call, now)

    def hang_up(self, call: Call, now: float) -> None:
        """The agent ends the call, or turns it away if it is waiting. The call must be open."""
        self.end(call, CALL_REJECTED if call.is_waiting else NORMAL_CLEARING, now)

    def end(self, call: Call, cause: int, now: float) -> None:
        """The last audio, end of stream, CHANNEL_HANGUP_COMPLETE. The call must be open."""
        call.cancel_timers()
        if call.is_answered:
            self._say_goodbye(call)
        self._unbridge(call)
        self._emit(call, EventType.CHANNEL_HANGUP_COMPLETE, now, cause)
        del self.calls[call.call_sid]
        self._remember_finished(call.call_sid, now)
        self.counters.calls_ended += 1
        self._account(call)
        if call.leg.handset is not None:
            call.leg.handset.ended(cause)
        if call.on_end is not None:
            call.on_end(call, now)

    def _say_goodbye(self, call: Call) -> None:
        for frame in call.leg.finish():
            if call.listener is not None and call.listener.peer is not None:
                self._effects.append(SendAudio(call.listener.peer, frame))
            else:
                call.leg.not_delivered(frame)
        for supervisor in call.supervisors.values():
            frame = _supervision_frame(call, supervisor, Packet(b"", call.codec.value), end_of_stream=True)
            self._effects.append(SendAudio(supervisor.peer, frame))

    def _account(self, call: Call) -> None:
        figures, counters = call.leg.statistics(), self.counters
        counters.packets_received += figures.packets_received
        counters.packets_refused += figures.packets_refused
        counters.packets_after_eos += figures.packets_after_eos
        counters.packets_sent += figures.packets_sent

    def _remember_finished(self, call_sid: str, now: float) -> None:
        self._finished[call_sid] = now
        while len(self._finished) > _MAX_FINISHED or (
            now - next(iter(self._finished.values())) > self.settings.event_window
        ):
            self._finished.popitem(last=False)

    # -- two legs -------------------------------------------------------------------------------------------------

    def bridge(self, one: Call, other: Call) -> None:
        """The far ends hear each other from now on, and each agent both. Both calls must be answered.

        Earlier bridges of theirs are taken apart.
        """
        for call in (one, other):
            self._unbridge(call)
            call.is_parked = False
        one.partner, other.partner = other, one
        self.wake(one)

    def _unbridge(self, call: Call) -> None:
        if call.partner is not None:
            call.partner.partner = None
            call.partner = None

    # -- audio ----------------------------------------------------------------------------------------------------

    def wake(self, call: Call) -> None:
        """The call, and whoever hears it, may have something to say: see to it that they have their slots."""
        call.leg.wake()
        for each in (call, call.partner):
            if each is not None and not each.has_slots and each.is_answered and not each.leg.held:
                each.has_slots = True
                self._effects.append(Speak(each))

    def receive(self, peer: Peer, frame: AudioFrame, now: float) -> None:
        """A frame from a connection: its agent's audio or its supervisor's. What belongs to no call is counted."""
        call = self.calls.get(frame.call_sid)
        if call is None or call.tenant != peer.tenant:
            self.counters.frames_for_unknown_calls += 1
            return
        supervisor = call.supervisors.get(peer)
        if supervisor is None:
            call.leg.receive(frame, now)
        elif supervisor.is_heard and 0 < len(frame.payload) <= self.settings.max_payload:
            supervisor.whispered.append(Packet(frame.payload, frame.codec))
        if not call.has_slots:
            self.wake(call)

    def slot(self, call: Call) -> list[tuple[Peer, AudioFrame]]:
        """The call's next 20 ms: which frames go to whom. An empty list also when the slots are no longer needed."""
        leg = call.leg
        if not call.is_answered or leg.held or self._is_idle(call):
            call.has_slots = False
            return []
        agent, heard = leg.listen()
        if not call.supervisors and call.partner is None:
            return self._to_listener(call, leg.speak(heard))
        voices = [(each, each.whispered.popleft()) for each in call.supervisors.values() if each.whispered]
        beside = [call.partner.leg.saying] if call.partner is not None else []
        others = [packet for packet in beside if packet is not None]
        to_caller = others + [voice for each, voice in voices if each.speaks_to_caller]
        said = leg.speak(add_voices(heard, to_caller, leg.codec))
        to_agent = others + [voice for each, voice in voices if each.speaks_to_agent]
        frames = self._to_listener(call, add_voices(said, to_agent, leg.codec))
        conversation = [packet for packet in (agent, said, *others) if packet is not None]
        for supervisor in call.supervisors.values():
            overheard = conversation + [voice for each, voice in voices if each is not supervisor]
            if overheard:
                frame = _supervision_frame(call, supervisor, mix(overheard, leg.codec))
                frames.append((supervisor.peer, frame))
        return frames

    def _is_idle(self, call: Call) -> bool:
        return (
            call.leg.idle
            and (call.partner is None or call.partner.leg.idle)
            and not any(each.whispered for each in call.supervisors.values())
        )

    def _to_listener(self, call: Call, said: Packet | None) -> list[tuple[Peer, AudioFrame]]:
        frames = call.leg.number(said)
        if call.listener is not None and call.listener.peer is not None:
            peer = call.listener.peer
            return [(peer, frame) for frame in frames]
        for frame in frames:
            call.leg.not_delivered(frame)
        return []

    def not_delivered(self, call: Call, peer: Peer, frame: AudioFrame) -> None:
        """A frame from :meth:`slot` found no room in its connection. Its number is spent."""
        self.counters.packets_not_delivered += 1
        if peer not in call.supervisors:
            call.leg.not_delivered(frame)


def _in_words(event: CallEvent) -> str:
    name = EventType(event.event_type).name
    if event.event_type != EventType.CHANNEL_HANGUP_COMPLETE:
        return name
    return (
        f"{name}, cause {event.q850_cause}; packets in {event.packets_received}, out {event.packets_sent}, "
        f"lost {event.packets_lost}"
    )


def _supervision_frame(
    call: Call, supervisor: Supervisor, packet: Packet, *, end_of_stream: bool = False
) -> AudioFrame:
    frame = AudioFrame(
        call_sid=call.call_sid,
        payload=packet.payload,
        codec=packet.codec,
        sequence_number=supervisor.next_number,
        end_of_stream=end_of_stream,
    )
    supervisor.next_number += 1
    return frame
