"""Hostile bytes for everything that decodes: mutated by our own dice, or guided by coverage with atheris."""

from __future__ import annotations

import contextlib
import random
import sys
import time

from agentao_trio import messages
from agentao_trio.errors import RemoteProtocolError
from agentao_trio.events import Ingest
from agentao_trio.wire import FrameDecoder, decode_reply, decode_request, encode_frame, encode_request

__all__ = ["coverage_guided", "mutated", "one_input"]

_METHODS = [int(method) for method in messages.METHODS]


def one_input(data: bytes) -> None:
    """Decode ``data`` as everything it might be. Whatever comes out but RemoteProtocolError is a bug."""
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
    for cls in messages.MESSAGES.values():
        try:
            message = messages.decode(cls, data)
        except RemoteProtocolError:
            continue
        messages.encode(message)
    with contextlib.suppress(RemoteProtocolError):
        decode_request(data)
    for method in _METHODS:
        with contextlib.suppress(RemoteProtocolError):
            decode_reply(data, method)


def _seeds() -> list[bytes]:
    seeds = []
    for cls in messages.MESSAGES.values():
        body = messages.encode(cls())
        seeds += [body, encode_frame(1, body), encode_request(1, body)]
    event = messages.encode(messages.CallEvent(call_sid="c-1", event_type=1, timestamp_ms=1, status="é\udcff"))
    audio = messages.encode(messages.AudioFrame(call_sid="c-1", payload=b"\xff" * 160, codec="PCMU", sequence_number=7))
    return [*seeds, event, audio, encode_frame(4, event) * 3, encode_frame(5, audio) * 3]


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


def mutated(seconds: float, *, seed: int = 0) -> tuple[int, float]:
    """Feed mutations of valid bytes for so many seconds of real time. Returns how many, and the slowest in seconds."""
    dice, seeds = random.Random(seed), _seeds()
    end, count, slowest = time.perf_counter() + seconds, 0, 0.0
    while (before := time.perf_counter()) < end:
        for _ in range(20):
            data = bytearray(dice.choice(seeds))
            _mutate(data, dice, seeds)
            one_input(bytes(data))
        count += 20
        slowest = max(slowest, (time.perf_counter() - before) / 20)
    return count, slowest


def coverage_guided(seconds: int) -> None:
    """Let atheris look for bytes that crash or hang :func:`one_input`. Ends the process."""
    try:
        import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ModuleNotFoundError:
        sys.exit("the coverage-guided fuzzer needs atheris; install it with 'pip install atheris' and run this again")
    with atheris.instrument_imports(include=["agentao_trio"]):
        pass
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-timeout=5", "-rss_limit_mb=512"], one_input)
    atheris.Fuzz()
