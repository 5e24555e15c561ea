"""Hostile bytes for everything that decodes, mutated from valid ones by dice.

    python -m tests.soak fuzz --inputs 10000000               in this process alone
    python -m tests.soak fuzz --inputs 10000000 --processes 4
    python -m tests.soak fuzz --seed 7 --first-block 300      goes on where a run of seed 7 was stopped

Inputs come in blocks of 10,000. A block depends on the seed and on its own number alone, so that any process may do it,
any run may go on with it, and what it found comes again. Ends with status 1 at the first input that makes a decoder
raise anything but RemoteProtocolError, and with a traceback of every thread when a block takes a minute.
"""

# ruff: noqa: T201 - printing is what it is for
from __future__ import annotations

import argparse
import contextlib
import faulthandler
import functools
import random
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import attrs

from agentao_trio import messages
from agentao_trio.errors import RemoteProtocolError
from agentao_trio.events import Ingest
from agentao_trio.messages import MethodId
from agentao_trio.wire import FrameDecoder, decode_reply, decode_request, encode_frame, encode_reply, encode_request

__all__ = ["BLOCK", "Block", "blocks", "decode_as_everything", "main", "valid_bytes"]

#: Inputs per block, and seconds of wall-clock time after which a block is taken for a hang.
BLOCK, HANG = 10_000, 60.0
_PROGRESS = 10.0


# -- what decodes ---------------------------------------------------------------------------------------------------


def _as_stream(data: bytes) -> None:
    """As a gateway's stream, cut in two somewhere; its frames as events and as audio, whatever they say they are."""
    decoder, ingest = FrameDecoder(), Ingest(max_calls=4)
    cut = data[0] if data else 0
    with contextlib.suppress(RemoteProtocolError):
        for chunk in (data[:cut], data[cut:]):
            for frame in decoder.feed(chunk):
                with contextlib.suppress(RemoteProtocolError):
                    ingest.event(frame.body, at=1.0)
                with contextlib.suppress(RemoteProtocolError):
                    messages.decode(messages.AudioFrame, frame.body)
    decoder.end()


def _as_message(cls: type[messages.Message], data: bytes) -> None:
    """What can be read can be written, and reads the same again."""
    try:
        message = messages.decode(cls, data)
    except RemoteProtocolError:
        return
    written = messages.encode(message)
    assert messages.encode(messages.decode(cls, written)) == written


def _as_request(data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        request = decode_request(data)
        method = messages.method_of(request.method_id)
        if method is not None:
            _as_message(messages.METHODS[method].request, request.body)


def _as_reply(method: MethodId, data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        reply = decode_reply(data, method)
        _as_message(messages.METHODS[method].reply, reply.body)


Target = Callable[[bytes], None]


def _targets() -> Iterator[tuple[Target, list[bytes]]]:
    """Everything that decodes, with valid bytes for it."""
    event = messages.CallEvent(call_sid="c-1", event_type=1, timestamp_ms=1, status="é\udcff", jitter_ms=1.5)
    audio = messages.AudioFrame(call_sid="c-1", payload=b"\xff" * 160, codec="PCMU", sequence_number=7)
    frames = [encode_frame(4, messages.encode(event)), encode_frame(5, messages.encode(audio))]
    yield _as_stream, [*frames, frames[0] * 3, frames[1] * 3, frames[0] + encode_frame(0, b"") + frames[1]]
    for cls in messages.MESSAGES.values():
        yield functools.partial(_as_message, cls), [messages.encode(cls())]
    yield functools.partial(_as_message, messages.CallEvent), [messages.encode(event)]
    yield functools.partial(_as_message, messages.AudioFrame), [messages.encode(audio)]
    lists = messages.GetIncomingCallsResponse(calls=(messages.IncomingCallInfo(call_sid="c-1"),) * 3)
    yield functools.partial(_as_message, messages.GetIncomingCallsResponse), [messages.encode(lists)]
    for method, known in messages.METHODS.items():
        body = messages.encode(known.request())
        yield _as_request, [encode_request(method, body), encode_request(method, body, rpc_length="inclusive")]
        body = messages.encode(known.reply())
        forms = ("exclusive", "inclusive", "bare")
        yield functools.partial(_as_reply, method), [encode_reply(method, body, form=form) for form in forms]


_TARGETS = [*_targets()]


def valid_bytes() -> list[bytes]:
    """What mutations begin with."""
    return list(dict.fromkeys(data for _, seeds in _TARGETS for data in seeds))


def decode_as_everything(data: bytes) -> None:
    """Decode ``data`` as everything it might be. Whatever comes out is a bug."""
    for target in dict.fromkeys(target for target, _ in _TARGETS):
        target(data)


# -- mutations ------------------------------------------------------------------------------------------------------


def _mutate(data: bytearray, dice: random.Random, others: list[bytes]) -> None:
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(7):
            case 0 if data:
                data[at % len(data)] = dice.randrange(256)
            case 1:
                del data[at:]
            case 2:
                data[at:at] = dice.randbytes(dice.randint(1, 9))
            case 3:
                data[at : at + 4] = dice.choice((0, 1, 3, 7, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)).to_bytes(4, "little")
            case 4:
                data[at:] = dice.choice(others)
            case 5 if data:
                data[at % len(data)] ^= 1 << dice.randrange(8)
            case _:
                del data[at : at + dice.randint(1, 4)]


@attrs.frozen(kw_only=True)
class Block:
    """What one block of inputs came to. ``slowest`` is processor time per input, in seconds, the mean of ten."""

    number: int
    inputs: int
    slowest: float
    #: The input that did something else than be decoded or refused, and what it did.
    culprit: bytes = b""
    complaint: str = ""


def _block(seed: int, number: int, inputs: int = BLOCK) -> Block:
    dice = random.Random(f"{seed} {number}")
    others = valid_bytes()
    slowest, since = 0.0, time.thread_time()
    faulthandler.dump_traceback_later(HANG, exit=True)
    try:
        for index in range(1, inputs + 1):
            target, seeds = dice.choice(_TARGETS)
            data = bytearray(dice.choice(seeds))
            _mutate(data, dice, others)
            try:
                target(bytes(data))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
                return Block(
                    number=number, inputs=index, slowest=slowest, culprit=bytes(data), complaint=f"{target}: {error!r}"
                )
            if index % 10 == 0:
                now = time.thread_time()
                slowest, since = max(slowest, (now - since) / 10), now
    finally:
        faulthandler.cancel_dump_traceback_later()
    return Block(number=number, inputs=inputs, slowest=slowest)


def blocks(inputs: int, *, seed: int = 0, first: int = 0, processes: int = 1) -> Iterator[Block]:
    """Decode about ``inputs`` mutated inputs, in whole blocks; yields each block, in order, when it is done."""
    numbers = range(first, first + max(1, round(inputs / BLOCK)))
    if processes == 1:
        for number in numbers:
            yield _block(seed, number)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(functools.partial(_block, seed), numbers)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak fuzz", description="Mutated bytes for the decoders.")
    parser.add_argument("--inputs", type=int, default=10_000_000, help="how many (default: ten million)")
    parser.add_argument("--processes", type=int, default=1, help="how many processes share the work (default: one)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first-block", type=int, default=0, help="where to begin: the block a stopped run named")
    given = parser.parse_args(arguments)
    began = said = time.perf_counter()
    done, slowest = 0, 0.0
    try:
        for block in blocks(given.inputs, seed=given.seed, first=given.first_block, processes=given.processes):
            done, slowest = done + block.inputs, max(slowest, block.slowest)
            if block.complaint:
                print(f"seed {given.seed}, block {block.number}, input {block.inputs}: {block.complaint}")
                print(f"the input was {block.culprit.hex()}")
                return 1
            if (now := time.perf_counter()) - said > _PROGRESS:
                said = now
                rate = done / (now - began)
                print(
                    f"{done:,} inputs, {rate:,.0f} a second; to go on from here: --seed {given.seed} --first-block "
                    f"{block.number + 1} --inputs {given.inputs - done}",
                    flush=True,
                )
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    took = time.perf_counter() - began
    print(f"{done:,} mutated inputs of seed {given.seed} in {took:.0f} s: no crash; slowest {slowest * 1000:.2f} ms")
    return 0
