"""UPL, DWN and EOS: audio to the far end, audio from it, and its end."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import trio
from hypothesis import strategies as st

from agentao_trio.audio import Codec
from agentao_trio.conformance.checks.events import ANSWER, HANGUP, end, names
from agentao_trio.conformance.checks.framing import (
    echoed,
    frames_of,
    heard_all,
    held_by_far_end,
    hexed,
    judge_echo,
    judge_usable,
    payloads,
    usable,
)
from agentao_trio.conformance.kit import Kit, Link
from agentao_trio.conformance.programmes import Inconclusive, programme
from agentao_trio.conformance.requirements import Judgement, Level, requirement
from agentao_trio.conformance.trace import Seen, Trace, What
from agentao_trio.messages import AudioFrame

_UPLINK = "Audio frames, sending; PROTOCOL section 11"
_DOWNLINK = "Audio frames, receiving; PROTOCOL section 11"
_END = "Audio frames, end_of_stream; PROTOCOL section 11"


async def _say(kit: Kit, link: Link, call_sid: str, packets: list[bytes], *, mark: str = "said") -> None:
    await link.say_paced(call_sid, packets)
    await heard_all(kit, call_sid, len(packets))
    kit.mark(mark, call_sid=call_sid, payloads=hexed(packets))


# -- UPL ------------------------------------------------------------------------------------------------------------


@requirement("UPL-01", Level.MUST, "Payloads of any bytes arrive as they were sent", source=_UPLINK)
def _any_bytes(trace: Trace, say: Judgement) -> None:
    judge_echo(trace, say)


@programme(
    "UPL-01",
    roles="loopback",
    calls=20,
    example=st.lists(st.integers(0, 255), min_size=1, max_size=6),
    faults="payload_cut_at_nul payload_as_text",
)
async def _say_any_bytes(kit: Kit, values: list[int]) -> None:
    async with kit.link() as link:
        call_sid = await link.answered("loopback")
        packets = [bytes((value + place) % 256 for place in range(160)) for value in values]
        await _say(kit, link, call_sid, [*packets, bytes(range(160)), bytes(range(96, 256))])
        await link.terminate(call_sid)


@requirement("UPL-02", Level.SHOULD, "Audio for an unknown call is ignored", source=_UPLINK)
def _unknown_call(trace: Trace, say: Judgement) -> None:
    judge_usable(trace, say)


@programme("UPL-02", roles="answer", faults="audio_for_nobody_closes_connection")
async def _speak_to_nobody(kit: Kit) -> None:
    async with kit.link() as link:
        kit.mark("provoked", by="audio for a call that does not exist")
        for frame in frames_of(f"{kit.client_id}-never-placed", payloads(5)):
            await link.send(frame)
        await trio.sleep(0.2)
        await usable(kit, link)


@requirement("UPL-03", Level.MUST, "Gaps, repeats and swaps of sequence numbers end nothing", source=_UPLINK)
def _odd_numbers(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("numbered oddly"):
        call_sid = mark.facts["call_sid"]
        if held_by_far_end(trace, call_sid):
            say.leave_open("the far end held the call")
            continue
        heard = echoed(trace, call_sid)
        say.expect(
            mark.facts["last"] in (payload.hex() for payload in heard),
            expected="what is said after them is still heard",
            seen=f"{len(heard)} payloads, and not the last one",
            call_sid=call_sid,
        )


@programme(
    "UPL-03",
    roles="loopback",
    calls=20,
    example=st.lists(st.sampled_from(["next", "skip", "repeat", "back", "far"]), min_size=1, max_size=8),
    faults="sequence_gap_ends_audio repeated_number_ends_audio",
)
async def _number_oddly(kit: Kit, steps: list[str]) -> None:
    async with kit.link() as link:
        call_sid = await link.answered("loopback")
        number = highest = 10
        packets = payloads(len(steps) + 5)
        for step, payload in zip([*steps, *["last"] * 5], packets, strict=True):
            # What comes behind a number that was there before is late, and may be dropped. The last ones are not.
            after = {"next": 1, "skip": 5, "repeat": 0, "back": -2, "far": 100, "last": highest - number + 1}
            number = max(0, number + after[step])
            highest = max(highest, number)
            await link.say(call_sid, payload, number)
            await trio.sleep(0.02)
        last = packets[-1]
        await kit.until(lambda: any(frame.payload == last for frame in kit.audio), patience=1.5)
        kit.mark("numbered oddly", call_sid=call_sid, last=last.hex(), steps=steps)
        await link.terminate(call_sid)


@requirement("UPL-04", Level.SHOULD, "A codec label that the call does not have is refused or dropped", source=_UPLINK)
def _wrong_label(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("labelled wrongly"):
        call_sid = mark.facts["call_sid"]
        came = [seen for seen in trace.audio(call_sid) if seen.message.payload.hex() == mark.facts["payload"]]
        say.expect(
            not came or any(seen.message.codec == "NO-SUCH-CODEC" for seen in came),
            expected="audio labelled NO-SUCH-CODEC is not played as something else",
            seen=f"{len(came)} packets of it, labelled {came[0].message.codec}" if came else "nothing",
            call_sid=call_sid,
        )


@programme("UPL-04", roles="loopback", faults="codec_label_ignored")
async def _label_wrongly(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered("loopback")
        payload = payloads(1, seed=99)[0]
        for number in range(3):
            await link.say(call_sid, payload, number, codec="NO-SUCH-CODEC")
            await trio.sleep(0.02)
        await trio.sleep(0.4)
        kit.mark("labelled wrongly", call_sid=call_sid, payload=payload.hex())
        await link.terminate(call_sid)


@requirement("UPL-05", Level.SHOULD, "A payload of 64 KiB is refused and does no harm", source=_UPLINK)
def _huge_payload(trace: Trace, say: Judgement) -> None:
    judge_usable(trace, say)
    for mark in trace.marks("shouted"):
        say.expect(
            all(len(payload) < 65_536 for payload in echoed(trace, mark.facts["call_sid"])),
            expected="eight seconds in one packet are not played",
            seen="a payload of 64 KiB came back",
            call_sid=mark.facts["call_sid"],
        )


@programme("UPL-05", roles="answer loopback", hostile=True, calls=2, faults="payload_of_any_size")
async def _shout(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered("loopback")
        kit.mark("provoked", by="a payload of 64 KiB")
        await link.say(call_sid, bytes(place % 250 + 1 for place in range(65_536)), 0)
        await trio.sleep(1.0)
        kit.mark("shouted", call_sid=call_sid)
        await link.terminate(call_sid)
        await usable(kit, link)


@requirement("UPL-06", Level.MUST, "PCM16 is accepted", source=_UPLINK)
def _pcm16(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("said in PCM16"):
        call_sid = mark.facts["call_sid"]
        say.expect(
            ANSWER in trace.event_types(call_sid) and trace.hangup(call_sid) is not None,
            expected="a call that goes on while PCM16 is said, and ends when it is told to",
            seen=names(trace.event_types(call_sid)),
            call_sid=call_sid,
        )
        early = [seen.at for seen in trace.events(call_sid) if seen.message.event_type == HANGUP]
        say.expect(
            not early or early[0] >= mark.at,
            expected="no hangup while PCM16 is being said",
            seen="CHANNEL_HANGUP_COMPLETE",
            call_sid=call_sid,
        )
        heard = [seen for seen in trace.audio(call_sid) if seen.message.payload]
        say.expect(
            bool(heard),
            expected="audio comes back from a loopback that is spoken to in PCM16",
            seen="nothing",
            call_sid=call_sid,
        )


@programme("UPL-06", roles="loopback", faults="pcm_16_refused")
async def _say_in_pcm16(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered("loopback")
        for number in range(20):
            samples = b"".join((1000 * (place % 8)).to_bytes(2, "little", signed=True) for place in range(320))
            await link.say(call_sid, samples, number, codec="PCM16")
            await trio.sleep(0.02)
        await trio.sleep(0.5)
        kit.mark("said in PCM16", call_sid=call_sid)
        await link.terminate(call_sid)


@requirement("UPL-07", Level.INFO, "What becomes of audio that comes faster than real time", source=_UPLINK)
def _fast(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("said fast"):
        heard = echoed(trace, mark.facts["call_sid"])
        say.report(f"of {mark.facts['packets']} packets sent at once, {len(heard)} came back")


@programme("UPL-07", roles="loopback")
async def _say_fast(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered("loopback")
        await link.send(b"".join(frames_of(call_sid, payloads(100))))
        await trio.sleep(3.0)
        kit.mark("said fast", call_sid=call_sid, packets=100)
        await link.terminate(call_sid)


@requirement("UPL-08", Level.SHOULD, "A stream for each packet is contained", source=_UPLINK)
def _stream_each(trace: Trace, say: Judgement) -> None:
    judge_usable(trace, say)


@programme("UPL-08", roles="answer loopback", hostile=True, calls=2, faults="streams_never_released")
async def _a_stream_for_each_packet(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered("loopback")
        kit.mark("provoked", by="sixty packets on sixty streams")
        for frame in frames_of(call_sid, payloads(60)):
            stream = await link.open_uni()
            await link.send(frame, stream=stream)
            stream.finish()
            await trio.sleep(0.01)
        await link.terminate(call_sid)
        await usable(kit, link)


# -- DWN ------------------------------------------------------------------------------------------------------------


def _numbers(trace: Trace) -> Iterable[tuple[str, list[Seen[AudioFrame]]]]:
    """The audio of each call on each connection, as it came."""
    for call_sid in dict.fromkeys(seen.message.call_sid for seen in trace.audio()):
        for link in dict.fromkeys(seen.observation.link for seen in trace.audio(call_sid)):
            yield call_sid, trace.audio(call_sid, link=link)


@requirement("DWN-01", Level.MUST, "A call's sequence numbers go up by one", source=_DOWNLINK, everywhere=True)
def _by_one(trace: Trace, say: Judgement) -> None:
    for call_sid, frames in _numbers(trace):
        for one, other in itertools.pairwise(frames):
            say.expect(
                other.message.sequence_number == one.message.sequence_number + 1,
                expected=f"sequence_number {one.message.sequence_number + 1}",
                seen=str(other.message.sequence_number),
                index=other.index,
                call_sid=call_sid,
            )


@programme("DWN-01", roles="loopback", faults="sequence_restarts sequence_skips sequence_repeats sequence_shared")
async def _two_echoes(kit: Kit) -> None:
    async with kit.link() as link:
        calls = [await link.answered("loopback") for _ in range(min(2, kit.limits.concurrency or 2))]
        for number, payload in enumerate(payloads(30)):
            for call_sid in calls:
                await link.say(call_sid, payload, number)
            await trio.sleep(0.02)
        await trio.sleep(0.3)
        for call_sid in calls:
            await end(kit, link, call_sid)


@requirement("DWN-02", Level.SHOULD, "Packets come at the pace of 20 ms each", source=_DOWNLINK)
def _paced(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("talked"):
        call_sid = mark.facts["call_sid"]
        frames = [seen for seen in trace.audio(call_sid) if not seen.message.end_of_stream]
        if len(frames) >= 20:
            pace = 1000 * (frames[-1].at - frames[0].at) / (len(frames) - 1)
            say.expect(
                abs(pace - 20) <= 2,
                expected="20 ms between packets, ± 2 on average",
                seen=f"{pace:.1f} ms over {len(frames)} packets",
                call_sid=call_sid,
            )


async def _talk(kit: Kit, link: Link, seconds: float) -> str:
    call_sid = await link.answered("loopback")
    await link.say_paced(call_sid, payloads(round(seconds * 50)))
    await trio.sleep(0.3)
    kit.mark("talked", call_sid=call_sid, packets=round(seconds * 50))
    await end(kit, link, call_sid)
    return call_sid


@programme("DWN-02", roles="loopback", timing=True, faults="packets_in_bursts packets_every_30_ms")
async def _talk_for_two_seconds(kit: Kit) -> None:
    async with kit.link() as link:
        await _talk(kit, link, 2.0)


@requirement("DWN-03", Level.MUST, "The codec label is a known one", source=_DOWNLINK, everywhere=True)
def _known_label(trace: Trace, say: Judgement) -> None:
    for seen in trace.audio():
        if not seen.message.end_of_stream or seen.message.payload:
            say.expect(
                Codec.named(seen.message.codec) is not None,
                expected="PCMU, PCMA or PCM16",
                seen=repr(seen.message.codec),
                index=seen.index,
                call_sid=seen.message.call_sid,
            )
    for mark in trace.marks("talked"):
        call_sid = mark.facts["call_sid"]
        over = trace.hangup(call_sid)
        labels = {seen.message.codec.upper() for seen in trace.audio(call_sid) if seen.message.payload}
        if over is not None and len(labels) == 1:
            say.expect(
                over.message.codec.upper() in labels,
                expected=f"codec {labels.pop()} in HANGUP_COMPLETE, as in the packets",
                seen=repr(over.message.codec),
                index=over.index,
                call_sid=call_sid,
            )


@requirement("DWN-04", Level.MUST, "Four seconds of audio have no gap and no repeat", source=_DOWNLINK)
def _unbroken(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("talked"):
        call_sid = mark.facts["call_sid"]
        frames = [seen for seen in trace.audio(call_sid) if not seen.message.end_of_stream]
        numbers = [seen.message.sequence_number for seen in frames]
        say.expect(
            bool(numbers) and numbers == list(range(numbers[0], numbers[0] + len(numbers))),
            expected="consecutive sequence numbers",
            seen=f"{len(numbers)} packets, {len(set(numbers))} numbers",
            call_sid=call_sid,
        )
        heard = len([seen for seen in frames if seen.message.payload])
        say.expect(
            heard >= 0.98 * mark.facts["packets"],
            expected=f"{mark.facts['packets']} packets back, less 2 %",
            seen=str(heard),
            call_sid=call_sid,
        )


@programme("DWN-03", roles="loopback", faults="codec_label_unknown codec_label_empty")
async def _talk_for_half_a_second(kit: Kit) -> None:
    async with kit.link() as link:
        await _talk(kit, link, 0.5)


@programme("DWN-04", roles="loopback", faults="every_tenth_packet_missing packet_repeated")
async def _talk_for_four_seconds(kit: Kit) -> None:
    async with kit.link() as link:
        await _talk(kit, link, 4.0)


@requirement("DWN-05", Level.MUST, "Calls do not hear each other", source=_DOWNLINK)
def _no_crosstalk(trace: Trace, say: Judgement) -> None:
    judge_echo(trace, say)


@programme("DWN-05", roles="loopback", calls=4, faults="audio_of_calls_mixed audio_to_the_wrong_call")
async def _four_echoes(kit: Kit) -> None:
    async with kit.link() as link:
        calls = [await link.answered("loopback") for _ in range(min(4, kit.limits.concurrency or 4))]
        said = {call_sid: payloads(30, seed=40 * place) for place, call_sid in enumerate(calls)}
        async with trio.open_nursery() as nursery:
            for call_sid, packets in said.items():
                nursery.start_soon(_say, kit, link, call_sid, packets)
        # The end of one is nothing to another.
        await link.terminate(calls[0])
        if len(calls) > 1:
            more = payloads(10, seed=200)
            await link.say_paced(calls[1], more, first=30)
            await heard_all(kit, calls[1], 40)
            kit.mark("said", call_sid=calls[1], payloads=hexed([*said[calls[1]], *more]))
        for call_sid in calls[1:]:
            await link.terminate(call_sid)


@requirement("DWN-06", Level.SHOULD, "No audio before ANSWER", source=_DOWNLINK, everywhere=True)
def _none_before_answer(trace: Trace, say: Judgement) -> None:
    for call_sid in dict.fromkeys(seen.message.call_sid for seen in trace.audio()):
        first = trace.audio(call_sid)[0]
        answers = [seen for seen in trace.events(call_sid) if seen.message.event_type == ANSWER]
        if answers:
            say.expect(
                first.index > answers[0].index,
                expected="the first packet after CHANNEL_ANSWER",
                seen=f"{answers[0].at - first.at:.3f} s before it",
                index=first.index,
                call_sid=call_sid,
            )


@programme("DWN-06", roles="loopback", faults="audio_while_ringing")
async def _ring_and_talk(kit: Kit) -> None:
    async with kit.link() as link:
        await _talk(kit, link, 0.3)


@requirement(
    "DWN-07", Level.MUST, "No audio after HANGUP_COMPLETE but end_of_stream", source=_DOWNLINK, everywhere=True
)
def _none_after_hangup(trace: Trace, say: Judgement) -> None:
    for call_sid in trace.call_sids():
        over = trace.hangup(call_sid)
        for seen in trace.audio(call_sid):
            if over is not None and seen.index > over.index and seen.observation.stream == over.observation.stream:
                say.expect(
                    seen.message.end_of_stream,
                    expected="nothing but end_of_stream after CHANNEL_HANGUP_COMPLETE",
                    seen=f"packet {seen.message.sequence_number}",
                    index=seen.index,
                    call_sid=call_sid,
                )
    for mark in trace.marks("talked"):
        say.expect(trace.hangup(mark.facts["call_sid"]) is not None, expected="CHANNEL_HANGUP_COMPLETE", seen="none")


@programme("DWN-07", roles="loopback", faults="audio_after_hangup")
async def _hang_up_in_mid_sentence(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered("loopback")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.say_paced, call_sid, payloads(60))
            await trio.sleep(0.5)
            await link.terminate(call_sid)
        kit.mark("talked", call_sid=call_sid, packets=60)
        await trio.sleep(0.5)


@requirement("DWN-08", Level.SHOULD, "A payload is 20 ms of its codec", source=_DOWNLINK, everywhere=True)
def _twenty_ms(trace: Trace, say: Judgement) -> None:
    spoken = {mark.facts["call_sid"] for mark in trace.marks("talked")}
    for seen in trace.audio():
        codec = Codec.named(seen.message.codec)
        if codec is not None and seen.message.call_sid in spoken and not seen.message.end_of_stream:
            say.expect(
                len(seen.message.payload) == codec.packet_bytes,
                expected=f"{codec.packet_bytes} bytes of {codec.value}",
                seen=f"{len(seen.message.payload)} bytes",
                index=seen.index,
                call_sid=seen.message.call_sid,
            )


@programme("DWN-08", roles="loopback", faults="payload_of_30_ms")
async def _talk_for_a_second(kit: Kit) -> None:
    async with kit.link() as link:
        await _talk(kit, link, 1.0)


# -- EOS ------------------------------------------------------------------------------------------------------------


@requirement("EOS-01", Level.MUST, "A call's audio ends with end_of_stream", source=_END)
def _ends(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("talked"):
        frames = trace.audio(mark.facts["call_sid"])
        say.expect(
            bool(frames) and frames[-1].message.end_of_stream,
            expected="end_of_stream in the last frame",
            seen=f"{len(frames)} frames, none of which ends it" if frames else "no frame",
            call_sid=mark.facts["call_sid"],
        )
        ends = [seen for seen in frames if seen.message.end_of_stream]
        say.expect(
            len(ends) <= 1,
            expected="one end_of_stream",
            seen=f"{len(ends)}",
            call_sid=mark.facts["call_sid"],
        )


@requirement("EOS-02", Level.MUST, "After a call's end_of_stream nothing of it comes on the stream", source=_END)
def _closed(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("talked"):
        frames = trace.audio(mark.facts["call_sid"])
        ends = [seen for seen in frames if seen.message.end_of_stream]
        if ends:
            later = [seen for seen in frames if seen.index > ends[0].index]
            say.expect(
                not later,
                expected="no frame of the call after its end_of_stream",
                seen=f"{len(later)} frames",
                index=later[0].index if later else None,
                call_sid=mark.facts["call_sid"],
            )
            own = ends[0].observation.stream
            shared = any(seen.observation.stream == own for seen in trace.events())
            over = any(each.stream == own and each.note == "fin" for _, each in trace.of(What.ENDED))
            if not shared:
                say.expect(over, expected="the end of a stream that carried this call alone", seen="it stays open")


@requirement("EOS-04", Level.MUST, "end_of_stream has the next sequence number", source=_END)
def _next_number(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("talked"):
        frames = trace.audio(mark.facts["call_sid"])
        if len(frames) > 1 and frames[-1].message.end_of_stream:
            say.expect(
                frames[-1].message.sequence_number == frames[-2].message.sequence_number + 1,
                expected=f"sequence_number {frames[-2].message.sequence_number + 1}",
                seen=str(frames[-1].message.sequence_number),
                index=frames[-1].index,
                call_sid=mark.facts["call_sid"],
            )


@programme("EOS-01", roles="loopback", faults="no_end_of_stream two_ends_of_stream")
@programme("EOS-02", roles="loopback", faults="audio_after_end_of_stream stream_left_open")
@programme("EOS-04", roles="loopback", faults="end_of_stream_numbered_zero")
async def _talk_and_end(kit: Kit) -> None:
    async with kit.link() as link:
        await _talk(kit, link, 0.5)


@requirement("EOS-03", Level.MUST, "What we say after our end_of_stream is not played", source=_END)
def _uplink_refused(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("spoken after the end"):
        heard = [payload.hex() for payload in echoed(trace, mark.facts["call_sid"])]
        say.expect(
            mark.facts["payload"] not in heard,
            expected="silence for what was said after end_of_stream",
            seen="it came back",
            call_sid=mark.facts["call_sid"],
        )


async def _end_uplink(kit: Kit, link: Link) -> tuple[str, bytes]:
    call_sid = await link.answered("loopback")
    packets = payloads(12)
    await link.say_paced(call_sid, packets[:10])
    await link.say(call_sid, b"", 10, end_of_stream=True)
    for number in (11, 12):
        await trio.sleep(0.02)
        await link.say(call_sid, packets[11], number)
    await trio.sleep(0.5)
    return call_sid, packets[11]


@programme("EOS-03", roles="loopback", faults="audio_accepted_after_our_end")
async def _speak_after_the_end(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid, late = await _end_uplink(kit, link)
        if not echoed(kit.trace, call_sid):
            raise Inconclusive("nothing of what was said before end_of_stream came back")
        kit.mark("spoken after the end", call_sid=call_sid, payload=late.hex())
        await link.terminate(call_sid)


@requirement("EOS-05", Level.INFO, "Whether a call goes on after our end_of_stream", source=_END)
def _goes_on(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("after our end"):
        over = trace.hangup(mark.facts["call_sid"])
        say.report("the call goes on" if over is None or over.at > mark.at else "the call is hung up")


@programme("EOS-05", roles="loopback")
async def _stay_after_the_end(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid, _ = await _end_uplink(kit, link)
        kit.mark("after our end", call_sid=call_sid)
        await link.terminate(call_sid)
