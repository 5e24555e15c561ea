"""Reading a model's events: one audio delta of 4 KB, ours against the standard library and the vendor's own client."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from functools import partial

from openai.resources.realtime.realtime import AsyncRealtimeConnection

from agentao_trio.realtime.conversation import Conversation
from agentao_trio.realtime.protocol import decode_server_event
from benchmarks.race import race
from benchmarks.row import Goal, Row, row_of

__all__ = ["measure"]

EVENTS = 1000
DELTA = json.dumps(
    {
        "type": "response.output_audio.delta",
        "event_id": "event_0123456789",
        "response_id": "resp_0123456789",
        "item_id": "item_0123456789",
        "output_index": 0,
        "content_index": 0,
        "delta": base64.b64encode(bytes(range(256)) * 12).decode(),
    }
).encode()


def measure(*, quick: bool) -> Iterator[Row]:
    """What reading costs, in one run: the same bytes, turn about."""
    pairs = 3 if quick else 31
    vendor = AsyncRealtimeConnection(None)  # type: ignore[arg-type]  # parsing asks nothing of the connection
    assert getattr(vendor.parse_event(DELTA), "delta", None) == getattr(decode_server_event(DELTA).event, "delta", "")
    ours = _times(partial(decode_server_event, DELTA))
    conversation = Conversation()

    def folded() -> None:
        conversation.apply(decode_server_event(DELTA))

    for name, other, goal in (
        ("audio delta of 4 KB: the vendor's client ÷ ours", partial(vendor.parse_event, DELTA), 5.0),
        ("audio delta of 4 KB: json to dict ÷ ours", partial(json.loads, DELTA), None),
        ("audio delta of 4 KB: decoded and folded ÷ decoded", folded, None),
    ):
        ratio = race(_times(other), ours, pieces=(EVENTS, EVENTS), pairs=pairs)
        yield row_of(
            ratio,
            group="realtime",
            name=name,
            goal=None if goal is None else Goal(relation="≥", value=goal),
            text=f"{ratio.first * 1e6:.1f} µs ÷ {ratio.second * 1e6:.1f} µs",
        )


def _times(work: Callable[[], object]) -> Callable[[], object]:
    """``work``, so often that a clock can tell."""

    def turn() -> None:
        for _ in range(EVENTS):
            work()

    return turn
