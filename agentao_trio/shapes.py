"""Functions that write and read one class of message at full speed, generated from the order of its fields.

Theory of operation
-------------------
A message is a row of fields: numbers of constant size, and strings with their length before them (PROTOCOL section 5).
Going field by field costs a call and an addition for each. Here the row is cut behind every string length instead, so
that everything between two strings, and the length of the second, is one precompiled ``struct.Struct``. The code is
spelled out once per class, the way attrs and NamedTuple spell out an ``__init__``. This is what reads an AudioFrame::

    def read(data):
        try:
            _, compat, size, length = unpack_0(data, 0)
            start = 10; stop = start + length
            call_sid = data[start:stop].decode("utf-8", "surrogateescape")
            (length,) = unpack_1(data, stop)
            start = stop + 4; stop = start + length
            payload = data[start:stop]
            (length,) = unpack_1(data, stop)
            start = stop + 4; stop = start + length
            codec = data[start:stop].decode("utf-8", "surrogateescape")
            sequence_number, end_of_stream = unpack_2(data, stop)
            stop += 9
        except struct_error:
            return None
        if compat > VERSION or stop > size + 6 or size + 6 > len(data):
            return None
        message = new(cls)
        set_call_sid(message, call_sid)
        set_payload(message, payload)
        set_codec(message, codec)
        set_sequence_number(message, sequence_number)
        set_end_of_stream(message, end_of_stream)
        return message

One check at the end is enough, because lengths are read *unsigned*: what they claim can only push ``stop`` forward,
slices stop at the end of the data, and a ``stop`` behind the envelope's end is an untruth somewhere.

Both functions take plain cases only and return None for every other: an older writer's missing fields, anything
malformed, a value of the wrong type. The caller then goes field by field, and says what was wrong and where; so there
is one place for refusals, and it may be slow. Nothing here comes from a peer: the source is made of field names.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["HEADER_SIZE", "Part", "make_reader", "make_writer", "reader_source", "writer_source"]

#: ``u8 version | u8 compat | i32 size`` before the fields.
HEADER_SIZE = 6


class Part(NamedTuple):
    """One field: its attribute, and how it is written.

    ``code`` is a letter of the :mod:`struct` module, ``text`` or ``bytes``. ``members`` are the named values of an
    enumeration, by number.
    """

    name: str
    code: str
    members: Mapping[int, int] = {}

    @property
    def is_string(self) -> bool:
        """Whether it is counted bytes, of text or of anything."""
        return self.code in ("text", "bytes")


class _Run(NamedTuple):
    """Fields of constant size, and the string that follows them (None behind the last string)."""

    numbers: tuple[Part, ...]
    string: Part | None

    @property
    def code(self) -> str:
        return "".join(part.code for part in self.numbers)


def _runs(parts: Sequence[Part]) -> Iterator[_Run]:
    numbers: list[Part] = []
    for part in parts:
        if part.is_string:
            yield _Run(tuple(numbers), part)
            numbers = []
        else:
            numbers.append(part)
    if numbers:
        yield _Run(tuple(numbers), None)


class _Structs:
    """The precompiled structs of one function, each once, by the name that its method goes by in the source."""

    def __init__(self, method: str) -> None:
        self._method = method
        self._codes: list[str] = []

    def name(self, code: str) -> str:
        if code not in self._codes:
            self._codes.append(code)
        return f"{self._method.partition('_')[0]}_{self._codes.index(code)}"

    def names(self) -> dict[str, Any]:
        return {self.name(code): getattr(struct.Struct("<" + code), self._method) for code in self._codes}


# -- reading ----------------------------------------------------------------------------------------------------------


def make_reader(cls: type, parts: Sequence[Part], version: int) -> Callable[[bytes], Any]:
    """A function from the bytes that begin with an envelope to a ``cls``, or None for what it leaves to others.

    ``version`` is the newest that may be asked of a reader. ``cls`` has ``__slots__`` named as the parts.
    """
    source, structs = reader_source(parts)
    # A frozen class's own __init__ looks every attribute's slot up by name each time. Finding the slots once and
    # filling them here takes half of that, and audio frames come by the thousand.
    setters = {f"set_{part.name}": getattr(cls, part.name).__set__ for part in parts}
    members = {f"members_{part.name}": part.members for part in parts if part.members}
    names = {"cls": cls, "new": object.__new__, "VERSION": version, **structs, **setters, **members}
    return _compiled("read", source, names)


def reader_source(parts: Sequence[Part]) -> tuple[str, dict[str, Any]]:
    """The reader as text, and the structs that it names."""
    structs = _Structs("unpack_from")
    steps = []
    targets, code, position = ["_", "compat", "size"], "BBI", "0"  # the envelope's own header begins the first run
    for run in _runs(parts) if parts else [_Run((), None)]:
        targets += [part.name for part in run.numbers] + ["length"] * (run.string is not None)
        code += run.code + "I" * (run.string is not None)
        size = struct.calcsize("<" + code)
        unpacked = f"({targets[0]},)" if len(targets) == 1 else ", ".join(targets)
        steps.append(f"{unpacked} = {structs.name(code)}(data, {position})")
        if run.string is not None:
            steps.append(f"start = {size if position == '0' else f'stop + {size}'}; stop = start + length")
            decoded = '.decode("utf-8", "surrogateescape")' if run.string.code == "text" else ""
            steps.append(f"{run.string.name} = data[start:stop]{decoded}")
        else:
            steps.append(f"stop = {size}" if position == "0" else f"stop += {size}")
        targets, code, position = [], "", "stop"
    lines = [
        "def read(data):",
        "    try:",
        *(f"        {step}" for step in steps),
        "    except struct_error:",
        "        return None",
        f"    if compat > VERSION or stop > size + {HEADER_SIZE} or size + {HEADER_SIZE} > len(data):",
        "        return None",
        "    message = new(cls)",
    ]
    for part in parts:
        value = f"members_{part.name}.get({part.name}, {part.name})" if part.members else part.name
        lines.append(f"    set_{part.name}(message, {value})")
    lines.append("    return message")
    return "\n".join(lines) + "\n", structs.names()


# -- writing ----------------------------------------------------------------------------------------------------------


def make_writer(parts: Sequence[Part], version: int, compat: int) -> Callable[[Any], bytes | None]:
    """A function from a message to its envelope, or None for a message that it leaves to others."""
    source, structs = writer_source(parts)
    members = {f"members_{part.name}": type(next(iter(part.members.values()))) for part in parts if part.members}
    names = {"encode": str.encode, "join": b"".join, "VERSION": version, "COMPAT": compat, **structs, **members}
    return _compiled("write", source, names)


def writer_source(parts: Sequence[Part]) -> tuple[str, dict[str, Any]]:
    """The writer as text, and the structs that it names."""
    structs = _Structs("pack")
    values, pieces = [], []
    fixed = 4 * sum(part.is_string for part in parts) + struct.calcsize("<" + "".join(run.code for run in _runs(parts)))
    lengths = "".join(f" + len({part.name})" for part in parts if part.is_string)
    arguments, code = ["VERSION", "COMPAT", f"{fixed}{lengths}"], "BBi"
    for run in _runs(parts) if parts else [_Run((), None)]:
        arguments += [part.name for part in run.numbers]
        code += run.code
        if run.string is not None:
            arguments.append(f"len({run.string.name})")
            code += "i"
        pieces.append(f"{structs.name(code)}({', '.join(arguments)})")
        if run.string is not None:
            pieces.append(run.string.name)
        arguments, code = [], ""
    for part in parts:
        value = f"message.{part.name}"
        values.append(
            # Called like this, it refuses whatever is no str.
            f'{part.name} = encode({value}, "utf-8", "surrogateescape")'
            if part.code == "text"
            else f"{part.name} = {value}"
        )
    doubts = [doubt for part in parts if (doubt := _doubt(part))]
    lines = ["def write(message):", "    try:", *(f"        {value}" for value in values)]
    if doubts:
        lines += [f"        if {' or '.join(doubts)}:", "            return None"]
    lines += [
        f"        return join(({', '.join(pieces)},))",
        "    except (TypeError, UnicodeEncodeError, struct_error):",
        "        return None",
    ]
    return "\n".join(lines) + "\n", structs.names()


#: The one class of value that a struct letter takes without a second look. (``struct`` itself takes True for a number
#: and anything for a bool.)
_PLAIN_CLASS = {"?": "bool", "d": "float", "bytes": "bytes"}


def _doubt(part: Part) -> str | None:
    """An expression that is true of a value that has to be looked at more closely."""
    if part.code == "text":
        return None
    doubt = f"{part.name}.__class__ is not {_PLAIN_CLASS.get(part.code, 'int')}"
    return f"({doubt} and {part.name}.__class__ is not members_{part.name})" if part.members else doubt


def _compiled(function: str, source: str, names: dict[str, Any]) -> Callable[[Any], Any]:
    names["struct_error"] = struct.error
    exec(compile(source, f"<shapes: {function}>", "exec"), names)  # noqa: S102 - our own text, see above
    made: Callable[[Any], Any] = names[function]
    return made
