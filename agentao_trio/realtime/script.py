"""What the scripted model says and does, as values: turns, and faults by name.

A turn is what one response holds. Each response takes the next turn, whether it was asked for or follows the caller's
speech; one that failed for want of capacity is taken again. When there are none left, ``otherwise`` is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any, Literal

import attrs

__all__ = ["FAULTS", "Script", "ToolCall", "Turn", "demo_script"]

#: What a connection can do wrong (``Script.faults``).
CONNECTION_FAULTS: Mapping[str, str] = {
    "refuse_401": "every connection is refused: the key is not known",
    "refuse_403": "every connection is refused: the key may not do this",
    "refuse_429": "the first connection is refused: too many requests",
    "refuse_503": "the first connection is refused: not available",
    "silent": "the first connection is accepted, and nothing follows",
    "echo_otherwise": "session.updated shows another output format than was asked for",
    "refuse_update": "session.update is refused with invalid_value",
}
#: What a turn can do wrong, or at least not as usual (``Turn.fault``).
TURN_FAULTS: Mapping[str, str] = {
    "disconnect": "the connection vanishes in the middle of the response",
    "close_1001": "error session_expired and close code 1001 in the middle of the response",
    "restart_1012": "close code 1012 in the middle of the response",
    "stall": "nothing is sent for five seconds in the middle of the response",
    "unknown_type": "an event of a type that nobody knows comes between the deltas",
    "malformed": "a message that is not JSON comes between the deltas",
    "duplicate": "every event of the response is sent twice, with one event_id",
    "late_delta": "a delta comes after the response's end",
    "missing_item_done": "an item of the response is never done",
    "interleaved": "the deltas of the turn's items alternate (legal)",
    "rate_limited": "the response fails with rate_limit_exceeded; limits are back after a second",
    "insufficient_quota": "the response fails with insufficient_quota",
    "server_error": "an error of type server_error in place of the response",
    "max_output_tokens": "the response is incomplete: max_output_tokens",
    "content_filter": "the response is incomplete: content_filter",
    "late_transcription": "what the caller said is transcribed after the response",
    "failed_transcription": "what the caller said cannot be transcribed",
}
#: Every fault, and what it does.
FAULTS: Mapping[str, str] = {**CONNECTION_FAULTS, **TURN_FAULTS}


def _known(faults: Mapping[str, str]) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        unknown = [name for name in (value if isinstance(value, tuple) else (value,)) if name and name not in faults]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no {attribute.name}; expected one of {', '.join(faults)}")

    return check


@attrs.frozen(kw_only=True)
class ToolCall:
    """A tool the model asks for; ``arguments`` is JSON."""

    name: str
    arguments: str = "{}"


@attrs.frozen(kw_only=True)
class Turn:
    """What one response holds: a message if there is ``text``, then a call of a tool if there is ``tool``."""

    text: str = ""
    #: A WAV file's bytes, or a tone that lasts as long as saying the text would.
    audio: bytes | Literal["tone"] = attrs.field(default="tone", repr=False)
    tool: ToolCall | None = None
    #: More in the same response, each with its own items.
    more: tuple[Turn, ...] = ()
    #: What the caller is understood to have said before this turn.
    heard: str = "…"
    #: Seconds between the response's beginning and its first output.
    think_seconds: float = 0.3
    #: How many times faster than real time audio is sent; ``inf`` is all at once.
    pace: float = 4.0
    fault: str | None = attrs.field(default=None, validator=_known(TURN_FAULTS))


@attrs.frozen(kw_only=True)
class Script:
    """A whole conversation from the model's side."""

    turns: tuple[Turn, ...] = ()
    #: What each response is made of when there are no turns left.
    otherwise: Turn = Turn(text="I have nothing more to say.")
    #: Seconds for which one connection is kept, as ``expires_at`` tells.
    lifetime: float = 3600.0
    #: Whether an interrupted item is also truncated by the server, to what it had sent; there are reports of both.
    truncates: bool = False
    faults: tuple[str, ...] = attrs.field(default=(), validator=_known(CONNECTION_FAULTS))


def demo_script() -> Script:
    """A receptionist: greets, looks up an order with the tool ``look_up_order``, says goodbye and hangs up.

    The goodbye comes with a call of the tool ``hangup``. Whatever is said after that is answered with ``transfer``.
    """

    def spoken(name: str) -> bytes:
        return resources.files("agentao_trio.realtime").joinpath("assets", f"{name}.wav").read_bytes()

    return Script(
        turns=(
            Turn(text="Hello, this is the garden shop. How can I help you?", audio=spoken("greeting"), heard="Hello?"),
            Turn(
                text="One moment, I look it up.",
                audio=spoken("moment"),
                heard="Where is my order, number 4711?",
                tool=ToolCall(name="look_up_order", arguments='{"number": "4711"}'),
            ),
            Turn(text="Your order left us this morning. It arrives tomorrow.", audio=spoken("order")),
            Turn(
                text="Thank you for calling. Goodbye.",
                audio=spoken("goodbye"),
                heard="Great, that was all. Bye.",
                tool=ToolCall(name="hangup"),
            ),
        ),
        otherwise=Turn(
            text="I put you through to a colleague.",
            audio=spoken("transfer"),
            heard="Can I talk to somebody?",
            tool=ToolCall(name="transfer", arguments='{"to": "colleague"}'),
        ),
    )
