"""FRM: frames, their lengths, and what becomes of broken ones."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence

import trio
from hypothesis import strategies as st

from agentao_trio import messages
from agentao_trio.conformance.checks.events import ANSWER, HANGUP, end, names
from agentao_trio.conformance.kit import Kit, Link
from agentao_trio.conformance.programmes import programme
from agentao_trio.conformance.requirements import Judgement, Level, requirement
from agentao_trio.conformance.trace import Observation, Trace, What
from agentao_trio.errors import RemoteProtocolError
from agentao_trio.messages import AudioFrame, CallEvent, EventType, MethodId
from agentao_trio.wire import encode_frame, encode_request

_LAYOUT = "Audio frames, frame layout; PROTOCOL section 4"
_READING = "PROTOCOL section 4.3, reading a stream"

_KNOWN = frozenset({MethodId.StreamEvents, MethodId.AudioFrame})
#: Seconds for an echo to come back.
_ECHO = 1.0


async def usable(kit: Kit, link: Link) -> None:
    """Whether the connection is still good for a whole call."""
    call_sid = await link.dial(wait=False)
    kit.mark("afterwards", call_sid=call_sid)
    await link.until(ANSWER, call_sid)
    await end(kit, link, call_sid)


def judge_usable(trace: Trace, say: Judgement) -> None:
    """The call placed afterwards ran its course, and no connection was closed by the gateway."""
    for mark in trace.marks("afterwards"):
        types = trace.event_types(mark.facts["call_sid"])
        say.expect(
            HANGUP in types and ANSWER in types,
            expected="a whole call on the same connection afterwards",
            seen=names(types),
            call_sid=mark.facts["call_sid"],
        )
    for mark in trace.marks("provoked"):
        say.expect(
            bool(trace.marks("afterwards")),
            expected=f"the connection to live on after {mark.facts['by']}",
            seen=next((f"closed with code {each.code} {each.note!r}" for _, each in trace.of(What.CLOSED)), "it ended"),
        )


def echoed(trace: Trace, call_sid: str) -> list[bytes]:
    """What came back of a call, without what was empty."""
    return [seen.message.payload for seen in trace.audio(call_sid) if seen.message.payload]


def judge_echo(trace: Trace, say: Judgement, mark: str = "said") -> None:
    """What a loopback was given came back, byte for byte, in order."""
    for each in {each.facts["call_sid"]: each for each in trace.marks(mark)}.values():
        call_sid = each.facts["call_sid"]
        if held_by_far_end(trace, call_sid):
            say.leave_open("the far end held the call")
            continue
        said = [bytes.fromhex(payload) for payload in each.facts["payloads"]]
        heard = echoed(trace, call_sid)
        wanted = set(said)
        heard = [payload for payload in heard if payload in wanted or payload.strip(b"\xff\xd5\x00")]
        say.expect(
            heard == said,
            expected=f"{len(said)} payloads echoed as they were sent",
            seen=_difference(said, heard),
            call_sid=call_sid,
        )


def _difference(said: Sequence[bytes], heard: Sequence[bytes]) -> str:
    for place, (one, other) in enumerate(zip(said, heard, strict=False)):
        if one != other:
            return f"{len(heard)} payloads; number {place} has {len(other)} of {len(one)} bytes: {other[:8].hex(' ')} …"
    return f"{len(heard)} payloads"


def payloads(count: int, seed: int = 0) -> list[bytes]:
    """Packets that cannot be mistaken for one another, or for silence."""
    return [bytes((seed + 7 * number + 3 * place) % 251 + 1 for place in range(160)) for number in range(count)]


def frames_of(call_sid: str, packets: Sequence[bytes], *, first: int = 0) -> list[bytes]:
    """Uplink frames."""
    return [
        encode_frame(
            MethodId.AudioFrame,
            messages.encode(
                AudioFrame(call_sid=call_sid, payload=payload, codec="PCMU", sequence_number=first + number)
            ),
        )
        for number, payload in enumerate(packets)
    ]


def hexed(packets: Sequence[bytes]) -> list[str]:
    """As a mark can hold them."""
    return [payload.hex() for payload in packets]


async def heard_all(kit: Kit, call_sid: str, count: int) -> None:
    """Wait until so many payloads have come back, or it is clear that they will not."""

    def complete() -> bool:
        return sum(frame.call_sid == call_sid and bool(frame.payload) for frame in kit.audio) >= count

    await kit.until(complete, patience=_ECHO + 0.02 * count)


def _by_stream(trace: Trace) -> dict[tuple[str, int | None], list[tuple[int, Observation]]]:
    streams: dict[tuple[str, int | None], list[tuple[int, Observation]]] = {}
    for index, frame in trace.of(What.FRAME):
        streams.setdefault((frame.link, frame.stream), []).append((index, frame))
    return streams


def held_by_far_end(trace: Trace, call_sid: str) -> bool:
    """Whether the far end held the call: what was said meanwhile is nobody's loss."""
    asked = any(request.method == MethodId.ExecuteDialplan for _, request in trace.of(What.REQUEST))
    return EventType.CHANNEL_HOLD in trace.event_types(call_sid) and not asked


# -- what the gateway writes ----------------------------------------------------------------------------------------


@requirement(
    "FRM-01",
    Level.MUST,
    "On streams of the gateway, length is a little-endian u32 that counts what follows it",
    source=_LAYOUT,
    everywhere=True,
)
def _length_after_itself(trace: Trace, say: Judgement) -> None:
    for index, ended in trace.of(What.ENDED):
        say.expect(
            "too" not in ended.note and "limit" not in ended.note,
            expected="lengths of up to 1 MiB, little-endian",
            seen=ended.note,
            index=index,
        )
    for (link, stream), frames in _by_stream(trace).items():
        unknown = [each for _, each in frames if messages.method_of(each.method or 0) not in _KNOWN]
        # A newer gateway may have frames of its own between the others. Misread lengths leave little else.
        say.expect(
            2 * len(unknown) < len(frames) or not frames,
            expected="frames that follow each other without a gap: the method id of an event or of audio",
            seen=f"{len(unknown)} of {len(frames)} frames of other methods on stream {stream} of {link}",
            index=frames[0][0],
        )
    for index, frame in trace.undecodable():
        say.expect(
            False,
            expected="a frame that holds a whole envelope",
            seen=f"{len(frame.data)} bytes: {frame.data[:24].hex(' ')}",
            index=index,
        )
    for mark in trace.marks("answered"):
        say.expect(
            bool(trace.events(mark.facts["call_sid"])),
            expected="frames of events after a call was placed",
            seen="none that could be read",
            call_sid=mark.facts["call_sid"],
        )


@programme("FRM-01", roles="answer", faults="length_big_endian length_includes_itself")
async def _read_frames(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.dial(wait=False)
        await link.until(ANSWER, call_sid, patience=3)
        kit.mark("answered", call_sid=call_sid)
        await link.terminate(call_sid)


@requirement("FRM-02", Level.MUST, "A frame may be split at any byte", source=_READING)
def _split(trace: Trace, say: Judgement) -> None:
    judge_echo(trace, say)


_CUTS = st.lists(st.integers(0, 5 * 220), max_size=12)


@programme("FRM-02", roles="loopback", example=_CUTS, calls=20, faults="split_frames_lost")
async def _split_frames(kit: Kit, cuts: list[int]) -> None:
    async with kit.link() as link:
        call_sid = await link.answered("loopback")
        packets = payloads(5)
        data = b"".join(frames_of(call_sid, packets))
        places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
        stream = await link.open_uni()
        for start, stop in itertools.pairwise(places):
            await link.send(data[start:stop], stream=stream)
            link.connection.flush()
            await trio.sleep(0.03)
        await heard_all(kit, call_sid, len(packets))
        kit.mark("said", call_sid=call_sid, payloads=hexed(packets))
        await link.terminate(call_sid)


@requirement("FRM-03", Level.MUST, "Frames that come together are all handled", source=_READING)
def _coalesced(trace: Trace, say: Judgement) -> None:
    judge_echo(trace, say)


@programme("FRM-03", roles="loopback", example=st.integers(2, 25), calls=20, faults="coalesced_frames_lost")
async def _many_at_once(kit: Kit, count: int) -> None:
    async with kit.link() as link:
        call_sid = await link.answered("loopback")
        packets = payloads(count)
        await link.send(b"".join(frames_of(call_sid, packets)))
        await heard_all(kit, call_sid, count)
        kit.mark("said", call_sid=call_sid, payloads=hexed(packets))
        await link.terminate(call_sid)


# -- what is broken -------------------------------------------------------------------------------------------------


@requirement("FRM-04", Level.SHOULD, "A length beyond the limit is refused, not waited for", source=_READING)
def _too_long(trace: Trace, say: Judgement) -> None:
    judge_usable(trace, say)
    for mark in trace.marks("claimed 4 GiB"):
        say.expect(
            mark.facts["refused"],
            expected="the stream stopped, or the connection closed, within 3 s of a length of 4 GiB",
            seen="it goes on being read",
        )


@programme("FRM-04", roles="answer", hostile=True, faults="waits_for_4_gib")
async def _claim_four_gib(kit: Kit) -> None:
    async with kit.link() as link:
        kit.mark("provoked", by="a length of 4 GiB")
        stream = await link.open_uni()
        refused = False
        with trio.move_on_after(3):
            try:
                await link.send(struct.pack("<II", 0xFFFF_FFF0, MethodId.AudioFrame), stream=stream)
                while True:
                    await stream.send_all(bytes(1000))
                    await trio.sleep(0.05)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                refused = True
        kit.mark("claimed 4 GiB", refused=refused)
        await usable(kit, link)


@requirement("FRM-05", Level.MUST, "Lengths of 0 to 7 do no harm to anybody else", source=_READING)
def _short(trace: Trace, say: Judgement) -> None:
    judge_usable(trace, say)
    judge_echo(trace, say)


@programme(
    "FRM-05",
    roles="answer loopback",
    hostile=True,
    example=st.integers(0, 7),
    calls=30,
    faults="one_bad_frame_kills_everything short_frame_kills_the_connection",
)
async def _short_lengths(kit: Kit, length: int) -> None:
    async with kit.link() as link:
        call_sid = await link.answered("loopback")
        kit.mark("provoked", by=f"a frame of length {length}")
        bad = await link.open_uni()
        await link.send(struct.pack("<I", length) + bytes(length), stream=bad)
        bad.finish()
        packets = payloads(3, seed=length)
        for number, frame in enumerate(frames_of(call_sid, packets)):
            await link.send(frame)
            if number == 0:
                await trio.sleep(0.05)
        await heard_all(kit, call_sid, 3)
        kit.mark("said", call_sid=call_sid, payloads=hexed(packets))
        await link.terminate(call_sid)
        await usable(kit, link)


@requirement("FRM-06", Level.SHOULD, "An unknown method id does not end the connection", source=_READING)
def _unknown_method(trace: Trace, say: Judgement) -> None:
    judge_usable(trace, say)


@programme("FRM-06", roles="answer", hostile=True, faults="unknown_method_closes_connection")
async def _send_an_unknown_method(kit: Kit) -> None:
    async with kit.link() as link:
        kit.mark("provoked", by="a method id that does not exist")
        await link.send(encode_frame(123_456_789, b"\0\0\0\0\0\0"))
        await link.exchange(encode_request(123_456_789, b"\0\0\0\0\0\0"), 123_456_789, patience=2)
        await usable(kit, link)


@requirement("FRM-07", Level.MUST, "A stream that ends in the middle of a frame does no harm", source=_READING)
def _cut_short(trace: Trace, say: Judgement) -> None:
    judge_usable(trace, say)


@programme("FRM-07", roles="answer", hostile=True, faults="truncated_frame_kills_the_connection")
async def _end_in_mid_frame(kit: Kit) -> None:
    async with kit.link() as link:
        whole = frames_of("nobody", payloads(1))[0]
        kit.mark("provoked", by="streams that end in the middle of a frame")
        for how in ("fin", "reset"):
            stream = await link.open_uni()
            await link.send(whole[: len(whole) // 2], stream=stream)
            if how == "fin":
                stream.finish()
            else:
                stream.reset(0)
        await trio.sleep(0.2)
        await usable(kit, link)


# -- what the documents leave open ----------------------------------------------------------------------------------


@requirement(
    "FRM-08", Level.INFO, "Which length convention requests and replies follow", source="PROTOCOL sections 4.1 and 4.2"
)
def _conventions(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("asked"):
        answer = trace.reply(mark.facts["stream"])
        form = "none" if answer is None or not answer.data else Trace.decoded_reply(answer)[0].form
        how = "reset" if answer is not None and answer.note == "reset" else form
        say.report(f"a request with an {mark.facts['rpc_length']} length: reply {how}")


@programme("FRM-08")
async def _ask_both_ways(kit: Kit) -> None:
    async with kit.link() as link:
        for rpc_length in ("exclusive", "inclusive"):
            body = messages.encode(messages.GetIncomingCallsRequest(trunk_id=kit.profile.trunk))
            data = encode_request(MethodId.GetIncomingCalls, body, rpc_length=rpc_length)
            answer = await link.exchange(data, MethodId.GetIncomingCalls)
            kit.mark("asked", rpc_length=rpc_length, stream=answer.stream)


@requirement(
    "FRM-09", Level.MUST, "Method ids are the decimal numbers of the table, little-endian", source="PROTOCOL section 8"
)
def _decimal_ids(trace: Trace, say: Judgement) -> None:
    for index, frame in trace.of(What.FRAME):
        say.expect(
            messages.method_of(frame.method or 0) in _KNOWN or not _holds_ours(frame.data),
            expected=f"{int(MethodId.StreamEvents)} for events, {int(MethodId.AudioFrame)} for audio",
            seen=f"{frame.method}",
            index=index,
        )


def _holds_ours(body: bytes) -> bool:
    """Whether a frame's body is an event or a packet of a call of the kit's, whatever its method id says."""
    for cls in (CallEvent, AudioFrame):
        try:
            if getattr(messages.decode(cls, body), "call_sid", ""):
                return True
        except RemoteProtocolError:
            continue
    return False


@programme("FRM-09", roles="loopback", faults="method_id_big_endian old_method_ids")
async def _events_and_audio(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered("loopback")
        await link.say_paced(call_sid, payloads(5))
        await end(kit, link, call_sid)


@requirement("FRM-10", Level.INFO, "How large a frame may be", source=_READING)
def _largest(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("largest"):
        say.report(f"audio of {mark.facts['bytes']} bytes in one frame is the largest of those tried that comes back")


@programme("FRM-10", roles="loopback", hostile=True)
async def _larger_and_larger(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered("loopback")
        largest = 0
        for number, size in enumerate((160, 1_000, 4_000, 16_000, 64_000, 250_000)):
            payload = bytes((place + number) % 250 + 1 for place in range(size))
            await link.send(frames_of(call_sid, [payload], first=number)[0])
            total = size

            def returned(total: int = total) -> bool:
                return any(len(frame.payload) == total for frame in kit.audio)

            if await kit.until(returned, patience=1.5):
                largest = size
        kit.mark("largest", bytes=largest)
        await link.terminate(call_sid)
