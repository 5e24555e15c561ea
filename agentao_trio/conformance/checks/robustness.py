"""FLW and ROB: flow control, bad paths, bad neighbours."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import attrs
import trio
from hypothesis import strategies as st

from agentao_trio import messages
from agentao_trio.conformance.checks.events import ANSWER, CREATE, HANGUP, course, end, names
from agentao_trio.conformance.checks.framing import heard_all, hexed, judge_echo, judge_usable, payloads, usable
from agentao_trio.conformance.kit import Kit, Link
from agentao_trio.conformance.programmes import Inconclusive, Unsupported, programme
from agentao_trio.conformance.requirements import Judgement, Level, requirement
from agentao_trio.conformance.trace import Trace, What
from agentao_trio.errors import ConnectionLost

_FLOW = "RFC 9000 section 4; PROTOCOL section 1"
_ROBUST = "PROTOCOL section 4.3"


# -- FLW ------------------------------------------------------------------------------------------------------------


@requirement("FLW-01", Level.MUST, "A client that allows 4 streams still hears of many calls", source=_FLOW)
def _few_streams(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("all of them"):
        missing = [sid for sid in mark.facts["calls"] if HANGUP not in trace.event_types(sid)]
        say.expect(
            not missing,
            expected=f"HANGUP_COMPLETE of all {len(mark.facts['calls'])} calls, on no more streams than were allowed",
            seen=f"{len(missing)} calls without",
        )
        closed = [each for _, each in trace.of(What.CLOSED) if each.code]
        say.expect(
            not closed,
            expected="no connection error for too many streams",
            seen=", ".join(f"code {each.code} {each.note}" for each in closed),
        )


@programme("FLW-01", roles="answer", calls=8, faults="stream_limit_ignored stream_per_event")
async def _allow_few_streams(kit: Kit) -> None:
    few = attrs.evolve(kit.profile.transport, max_inbound_streams=4)
    async with kit.link(settings=few) as link:
        calls: list[str] = []
        try:
            for _ in range(8):
                calls.append(await link.dial(wait=False))
                if await link.until(ANSWER, calls[-1]) is None:
                    break
                await link.terminate(calls[-1])
        finally:
            kit.mark("all of them", calls=calls)


@requirement("FLW-02", Level.SHOULD, "Audio that nobody reads does not hold up events", source=_FLOW)
def _unread_audio(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("ended unread"):
        over = trace.hangup(mark.facts["call_sid"])
        say.expect(
            over is not None,
            expected="HANGUP_COMPLETE, though the stream with the audio is not read",
            seen="none",
            call_sid=mark.facts["call_sid"],
        )


@programme("FLW-02", roles="loopback", prefers="audio_apart", disturbs=True, faults="unread_audio_blocks_events")
async def _do_not_read_audio(kit: Kit) -> None:
    small = attrs.evolve(kit.profile.transport, max_stream_data=16_384)
    async with kit.link(settings=small) as link:
        call_sid = await link.answered("loopback")
        streams = {seen.observation.stream for seen in kit.trace.events(call_sid)}
        await link.say_paced(call_sid, payloads(5))
        await trio.sleep(0.3)
        audio = {seen.observation.stream for seen in kit.trace.audio(call_sid)} - streams
        if not audio:
            raise Unsupported("events and audio share a stream: neither can be read without the other")
        for stream in audio:
            assert stream is not None
            link.stop_reading(stream)
        await link.say_paced(call_sid, payloads(150), first=5)
        await link.terminate(call_sid)
        kit.mark("ended unread", call_sid=call_sid)


@requirement("FLW-03", Level.SHOULD, "STOP_SENDING on a stream with audio does not end the call", source=_FLOW)
def _stopped_audio(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("audio stopped"):
        over = trace.hangup(mark.facts["call_sid"])
        say.expect(
            over is None or over.at >= mark.at,
            expected="the call to go on after STOP_SENDING",
            seen="CHANNEL_HANGUP_COMPLETE",
            call_sid=mark.facts["call_sid"],
        )
        later = [seen for seen in trace.events(mark.facts["call_sid"]) if seen.at >= mark.at]
        say.expect(bool(later), expected="events after STOP_SENDING", seen="none", call_sid=mark.facts["call_sid"])


@programme("FLW-03", roles="loopback", disturbs=True, faults="stop_sending_ends_call")
async def _stop_audio(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered("loopback")
        await link.say_paced(call_sid, payloads(10))
        for inbound in link.inbound.values():
            inbound.stream.stop(0)
        await link.say_paced(call_sid, payloads(20), first=10)
        await trio.sleep(0.5)
        kit.mark("audio stopped", call_sid=call_sid)
        await link.terminate(call_sid)


@requirement("FLW-04", Level.MUST, "Windows of 64 KiB are enough", source=_FLOW)
def _small_windows(trace: Trace, say: Judgement) -> None:
    judge_echo(trace, say)


@programme("FLW-04", roles="loopback", faults="window_never_widened")
async def _grant_small_windows(kit: Kit) -> None:
    small = attrs.evolve(kit.profile.transport, max_stream_data=65_536, max_data=65_536)
    async with kit.link(settings=small) as link:
        call_sid = await link.answered("loopback")
        packets = payloads(250)
        stream_of: list[bytes] = packets
        for number, payload in enumerate(stream_of):
            await link.say(call_sid, payload, number)
            await trio.sleep(0.01)
        await heard_all(kit, call_sid, len(packets))
        kit.mark("said", call_sid=call_sid, payloads=hexed(packets))
        await link.terminate(call_sid)


@requirement("FLW-05", Level.SHOULD, "The idle timeout is 30 s or more", source="PROTOCOL section 1")
def _idle_timeout(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("quiet"):
        say.expect(
            mark.facts["alive"],
            expected=f"a connection that lives on after {mark.facts['seconds']:g} s without a word",
            seen="it is gone",
        )


@programme("FLW-05", waits=28.0, faults="idle_timeout_of_5_s")
async def _be_quiet(kit: Kit) -> None:
    # No PING of ours keeps it alive: what is tested is the peer's patience.
    quiet = attrs.evolve(kit.profile.transport, ping_interval=100.0, dead_after=100.0, idle_timeout=120.0)
    alive = False
    async with kit.link(settings=quiet) as link:
        await trio.sleep(28)
        with contextlib.suppress(ConnectionLost, trio.BrokenResourceError):
            await link.ask(messages.GetIncomingCallsRequest(trunk_id=kit.profile.trunk))
            alive = not link.connection.is_over
        kit.mark("quiet", seconds=28, alive=alive)


@requirement("FLW-06", Level.SHOULD, "A change of the client's port is survived", source="RFC 9000 section 9")
def _rebound(trace: Trace, say: Judgement) -> None:
    judge_usable(trace, say)


@programme("FLW-06", roles="answer", faults="port_change_closes_connection")
async def _change_the_port(kit: Kit) -> None:
    async with kit.link() as link:
        await link.ask(messages.GetIncomingCallsRequest(trunk_id=kit.profile.trunk))
        kit.mark("provoked", by="a change of the source port")
        await kit.rebind(link)
        await link.ask(messages.GetIncomingCallsRequest(trunk_id=kit.profile.trunk))
        await usable(kit, link)


# -- ROB ------------------------------------------------------------------------------------------------------------


@requirement("ROB-01", Level.MUST, "Streams of random bytes do not touch other calls", source=_ROBUST)
def _random_streams(trace: Trace, say: Judgement) -> None:
    judge_usable(trace, say)
    judge_echo(trace, say)


_NOISE = st.lists(st.tuples(st.booleans(), st.integers(0, 2**32 - 1), st.integers(0, 3_000)), min_size=1, max_size=6)


@programme(
    "ROB-01", roles="answer loopback", hostile=True, example=_NOISE, calls=30, faults="random_bytes_crash_neighbours"
)
async def _send_noise(kit: Kit, streams: list[Any]) -> None:
    async with kit.link("A") as link:
        call_sid = await link.answered("loopback")
        packets = payloads(10)
        kit.mark("provoked", by="streams of random bytes on another connection")
        async with kit.link("B", subscribe=False) as noisy, trio.open_nursery() as nursery:

            async def say() -> None:
                await link.say_paced(call_sid, packets)

            nursery.start_soon(say)
            for bidirectional, seed, length in streams:
                noise = random.Random(seed).randbytes(length)
                with contextlib.suppress(trio.BrokenResourceError, Inconclusive):
                    if bidirectional:
                        await noisy.exchange(noise, 0, patience=0.3)
                    else:
                        stream = await noisy.open_uni()
                        await noisy.send(noise, stream=stream)
                        stream.finish()
        await heard_all(kit, call_sid, len(packets))
        kit.mark("said", call_sid=call_sid, payloads=hexed(packets))
        await link.terminate(call_sid)
        await usable(kit, link)


async def _questions(link: Link, count: int) -> list[float]:
    waits = []
    for _ in range(count):
        began = trio.current_time()
        await link.ask(messages.GetIncomingCallsRequest(trunk_id=link.kit.profile.trunk))
        waits.append(trio.current_time() - began)
    return sorted(waits)


@requirement("ROB-02", Level.SHOULD, "Malformed load on one connection leaves others' replies as quick", source=_ROBUST)
def _under_load(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("loaded"):
        before, after = mark.facts["before_ms"], mark.facts["after_ms"]
        # A datagram that gets lost costs some 30 ms, whatever the ratio: that is nobody's fault.
        say.expect(
            after <= max(2 * before, before + 100),
            expected=f"p95 of {before:.1f} ms before, less than twice of it meanwhile",
            seen=f"{after:.1f} ms",
        )


@programme("ROB-02", hostile=True, timing=True, faults="malformed_load_blocks")
async def _load(kit: Kit) -> None:
    async with kit.link("A") as link, kit.link("B", subscribe=False) as noisy:
        before = await _questions(link, 20)

        async def load() -> None:
            rng = random.Random(1)
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, Inconclusive):
                while True:
                    stream = await noisy.open_uni()
                    await stream.send_all(rng.randbytes(400))
                    stream.finish()
                    await trio.sleep(0.002)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(load)
            # A gateway may take its time, as long as the load does not change it.
            seconds = max(3.0, 4 * sum(before))
            with trio.move_on_after(seconds) as patience:
                after = await _questions(link, 20)
            if patience.cancelled_caught:
                after = [seconds] * 20
            nursery.cancel_scope.cancel()
        place = int(0.95 * 19)
        kit.mark("loaded", before_ms=1000 * before[place], after_ms=1000 * after[place])


@requirement("ROB-03", Level.SHOULD, "A handshake succeeds while every fifth datagram is lost", source="RFC 9002")
def _lossy_handshake(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("handshakes"):
        say.expect(
            mark.facts["good"] >= mark.facts["tried"] - 1,
            expected=f"all but one of {mark.facts['tried']} handshakes within 10 s",
            seen=f"{mark.facts['good']}",
        )


@programme("ROB-03", disturbs=True, timing=True, faults="handshake_never_repeated")
async def _lose_every_fifth(kit: Kit) -> None:
    good = 0

    async def shake_hands(name: str) -> None:
        nonlocal good
        with contextlib.suppress(Inconclusive):
            async with kit.link(name, subscribe=False, loss=0.2) as link:
                link.wire.loss = 0.0
                good += 1

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(shake_hands, f"A{number}")
    kit.mark("handshakes", good=good, tried=20)


@requirement("ROB-04", Level.MUST, "Swapped and doubled datagrams change nothing", source="RFC 9000 section 2.2")
def _swapped(trace: Trace, say: Judgement) -> None:
    judge_echo(trace, say)
    for mark in trace.marks("said"):
        types = trace.event_types(mark.facts["call_sid"])
        say.expect(
            course(trace, mark.facts["call_sid"]) == [CREATE, ANSWER, HANGUP],
            expected="CREATE ANSWER HANGUP_COMPLETE",
            seen=names(types),
            call_sid=mark.facts["call_sid"],
        )


@programme("ROB-04", roles="loopback", faults="duplicated_datagrams_confuse")
async def _swap_and_double(kit: Kit) -> None:
    async with kit.link() as link:
        link.wire.reordering = link.wire.duplication = 0.1
        call_sid = await link.answered("loopback")
        packets = payloads(40)
        await link.say_paced(call_sid, packets)
        await heard_all(kit, call_sid, len(packets))
        kit.mark("said", call_sid=call_sid, payloads=hexed(packets))
        await end(kit, link, call_sid)


@requirement(
    "ROB-05", Level.MUST, "A client that vanishes is let go within the idle timeout", source="RFC 9000 section 10.1"
)
def _vanished(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("vanished"):
        say.expect(
            mark.facts["served"],
            expected="others are served after many clients have vanished",
            seen="a new connection is not",
        )


@programme("ROB-05", roles="answer", waits=35.0, disturbs=True, calls=1, faults="vanished_clients_kept")
async def _vanish(kit: Kit) -> None:
    for number in range(10):
        async with kit.link(f"V{number}", subscribe=False) as link:
            link.wire.deaf = link.wire.mute = True
    await trio.sleep(35)
    served = False
    try:
        async with kit.link("A") as link:
            call_sid = await link.answered()
            await link.terminate(call_sid)
            served = HANGUP in kit.trace.event_types(call_sid)
    finally:
        kit.mark("vanished", served=served)
