"""Who answers when the gateway dials: one table of far ends, chosen by the number or the SIP user that was dialled.

The numbers live in +1 555 01x xxxx, which no telephone network assigns. Behind ``+15550 1`` come five digits: three for
the group and two for the row or for a parameter, so that the interesting ones can be remembered::

    +155501 000 nn   a far end of its own: 01 echoes; 16, 17, 18, 19 end with that Q.850 cause
    +155501 001 rr   echoes and loses rr % of its packets (002 reorders, 003 duplicates)
    +155501 004 cc   the gateway refuses Originate with ErrorCode cc
    +155501 005 nn   the gateway never replies to Originate
    +155501 006 cc   answers, then hangs up with Q.850 cause cc
    +155501 007 cc   never answers, ends with Q.850 cause cc

The same far ends have names, dialled as ``sip:NAME@anything``, with the two digits as a parameter: ``;rate=5``,
``;cause=31``, ``;code=3``. ``;codec=PCMA`` sets what any of them negotiates. What each one does with time is done by
the model, what it does with audio by :mod:`agentao_trio.gateway.leg`; this table says which.
"""

from __future__ import annotations

import re
from enum import Enum, auto

import attrs

from agentao_trio.audio import Codec
from agentao_trio.dialplan import is_destination
from agentao_trio.messages import ErrorCode

__all__ = ["FAR_ENDS", "FarEnd", "Impairment", "Voice", "find_caller", "find_far_end"]


class Voice(Enum):
    """What a far end sends once it has answered."""

    #: What it hears, byte for byte.
    ECHO = auto()
    #: 1 kHz, without end.
    TONE = auto()
    #: The gateway's recording, once.
    RECORDING = auto()
    #: Packets of silence, without end.
    SILENCE = auto()
    #: No packets at all.
    NOTHING = auto()


class Impairment(Enum):
    """What happens to a share of the far end's packets on their way to the gateway."""

    NONE = auto()
    #: Gone; its sequence number is spent.
    LOSS = auto()
    #: Swapped with the next one.
    REORDER = auto()
    #: Sent twice.
    DUPLICATE = auto()


@attrs.frozen(kw_only=True)
class FarEnd:
    """One row of the table, or, from :func:`find_far_end`, a row with its parameter filled in."""

    #: The SIP user.
    name: str
    #: The number; two letters at the end stand for the two digits of ``parameter``.
    number: str
    #: What happens, for people.
    happens: str
    #: The attribute that the number's last two digits, or the SIP parameter of the same name, set.
    parameter: str = ""
    voice: Voice = Voice.ECHO
    impairment: Impairment = Impairment.NONE
    #: Percent of the packets that the impairment hits.
    rate: int = 0
    answers: bool = True
    #: Whether it ends the call by itself: after talking for a while, or, if it never answers, instead of answering.
    hangs_up: bool = False
    #: The Q.850 cause with which it does.
    cause: int = 16
    #: Whether it puts the call on hold for a while after answering.
    holds: bool = False
    #: Whether it reacts to DTMF digits.
    keypad: bool = False
    #: What Originate is answered with; anything but SUCCESS means that no call is placed.
    code: int = ErrorCode.SUCCESS
    #: Whether Originate is answered, and whether the call is placed.
    replies: bool = True
    placed: bool = True
    #: What it negotiates; ``None`` leaves that to the trunk.
    codec: Codec | None = None


FAR_ENDS: tuple[FarEnd, ...] = (
    FarEnd(
        name="echo",
        number="+15550100001",
        happens="Answers and sends back every packet it hears, byte for byte, in order, with the codec label it came "
        "with. Sends nothing by itself.",
    ),
    FarEnd(name="tone", number="+15550100002", voice=Voice.TONE, happens="Answers and sends a 1 kHz tone."),
    FarEnd(
        name="recording",
        number="+15550100003",
        voice=Voice.RECORDING,
        happens="Answers, plays a recording of speech once, then sends nothing and stays on the line.",
    ),
    FarEnd(name="silence", number="+15550100004", voice=Voice.SILENCE, happens="Answers and sends packets of silence."),
    FarEnd(name="nothing", number="+15550100005", voice=Voice.NOTHING, happens="Answers and sends no packets at all."),
    FarEnd(
        name="hold",
        number="+15550100006",
        holds=True,
        happens="Answers and echoes; soon puts the call on hold and, a little later, resumes it. No audio passes while "
        "the call is held.",
    ),
    FarEnd(
        name="keypad",
        number="+15550100007",
        voice=Voice.SILENCE,
        keypad=True,
        happens="Answers with silence and reacts to digits: 1 sends the tone, 2 plays the recording, 3 echoes, 0 is "
        "silent again, * holds for a while, # hangs up (16).",
    ),
    FarEnd(
        name="hangup",
        number="+15550100016",
        hangs_up=True,
        happens="Answers, echoes for a moment, hangs up normally (16).",
    ),
    FarEnd(name="busy", number="+15550100017", answers=False, hangs_up=True, cause=17, happens="Busy (17)."),
    FarEnd(
        name="no-response",
        number="+15550100018",
        answers=False,
        hangs_up=True,
        cause=18,
        happens="Nobody responds: the line is not even rung (18).",
    ),
    FarEnd(
        name="no-answer",
        number="+15550100019",
        answers=False,
        hangs_up=True,
        cause=19,
        happens="Rings, and nobody answers (19).",
    ),
    FarEnd(
        name="loss",
        number="+155501001rr",
        parameter="rate",
        impairment=Impairment.LOSS,
        happens="Echoes and loses rr % of its packets: their sequence numbers are missing.",
    ),
    FarEnd(
        name="reorder",
        number="+155501002rr",
        parameter="rate",
        impairment=Impairment.REORDER,
        happens="Echoes and swaps rr % of its packets with the next one; both keep their sequence numbers.",
    ),
    FarEnd(
        name="duplicate",
        number="+155501003rr",
        parameter="rate",
        impairment=Impairment.DUPLICATE,
        happens="Echoes and sends rr % of its packets twice, with the same sequence number.",
    ),
    FarEnd(
        name="refused",
        number="+155501004cc",
        parameter="code",
        code=ErrorCode.ERR_RATE_LIMITED,
        happens="Originate is refused with ErrorCode cc: 01 invalid trunk, 02 invalid destination, 03 rate limited, "
        "04 circuit breaker, 05 internal error, 06 validation failed, 07 unauthorised. No call, no events.",
    ),
    FarEnd(
        name="no-reply",
        number="+15550100501",
        replies=False,
        happens="Originate is never answered, but the call is placed and echoes: only its events tell.",
    ),
    FarEnd(
        name="lost-request",
        number="+15550100502",
        replies=False,
        placed=False,
        happens="Originate is never answered and no call is placed.",
    ),
    FarEnd(
        name="ends",
        number="+155501006cc",
        parameter="cause",
        hangs_up=True,
        happens="Answers, echoes for a moment, hangs up with Q.850 cause cc.",
    ),
    FarEnd(
        name="fails",
        number="+155501007cc",
        parameter="cause",
        answers=False,
        hangs_up=True,
        cause=41,
        happens="Never answers; the call ends with Q.850 cause cc.",
    ),
)

_DEFAULT_RATE = 5

_BY_NAME = {row.name: row for row in FAR_ENDS}
_BY_NUMBER = {row.number: row for row in FAR_ENDS if not row.parameter}
_BY_PREFIX = {row.number[:-2]: row for row in FAR_ENDS if row.parameter}


def find_far_end(to: str, *, other: str | None) -> FarEnd | None:
    """The far end behind a destination, with its parameters set; ``None`` when there is none.

    ``other`` names the row that answers destinations which are well formed and not in the table; ``None`` makes them
    unroutable. SIP parameters that are unknown or out of range (``rate`` and ``cause`` 0 to 99 and 1 to 127, ``code`` 1
    to 7) leave the far end unroutable as well: a mistyped test should not pass.
    """
    if not is_destination(to):
        return None
    fallback = _BY_NAME[other] if other is not None else None
    if to.startswith("+"):
        return _by_number(to, fallback)
    address, *parameters = to.partition(":")[2].split(";")
    user = address.partition("@")[0]
    far_end = _by_number(user, fallback) if user.startswith("+") else _BY_NAME.get(user.lower(), fallback)
    if far_end is None:
        return None
    if far_end.parameter == "rate" and not far_end.rate:
        far_end = attrs.evolve(far_end, rate=_DEFAULT_RATE)
    # A table row knows its parameters; whoever answers instead of a stranger does not know the stranger's.
    return _with_parameters(far_end, parameters) if user.lower() in _BY_NAME else far_end


def find_caller(name: str) -> FarEnd | None:
    """The far end that calls in, by its name, number or SIP URI; ``None`` when there is none of that name."""
    return find_far_end(name if name.startswith(("+", "sip:", "sips:")) else f"sip:{name}@caller", other=None)


def _by_number(number: str, fallback: FarEnd | None) -> FarEnd | None:
    if number in _BY_NUMBER:
        return _BY_NUMBER[number]
    row = _BY_PREFIX.get(number[:-2])
    return fallback if row is None else _with_parameter(row, row.parameter, number[-2:])


def _with_parameters(far_end: FarEnd | None, parameters: list[str]) -> FarEnd | None:
    for parameter in parameters:
        if far_end is None:
            break
        name, _, value = parameter.partition("=")
        if name == "codec":
            codec = Codec.named(value)
            far_end = attrs.evolve(far_end, codec=codec) if codec else None
        else:
            far_end = _with_parameter(far_end, name, value) if name == far_end.parameter else None
    return far_end


_RANGES = {"rate": range(100), "cause": range(1, 128), "code": range(1, 8)}


def _with_parameter(far_end: FarEnd, name: str, value: str) -> FarEnd | None:
    if not re.fullmatch(r"[0-9]{1,3}", value) or int(value) not in _RANGES[name]:
        return None
    match name:
        case "rate":
            return attrs.evolve(far_end, rate=int(value))
        case "cause":
            return attrs.evolve(far_end, cause=int(value))
        case _:
            return attrs.evolve(far_end, code=int(value))
