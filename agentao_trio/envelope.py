"""Envelopes: what versions a message, so that older and newer peers can read each other (PROTOCOL section 5).

An envelope is ``u8 version | u8 compat | i32 size | fields``, little-endian, nothing between the fields. A
:class:`Layout` knows the fields of one class, writes its envelopes, and reads them without believing a word: every size
is held against the bytes that are there before anything is done on its behalf. Nesting goes as deep as the layouts do,
so bytes cannot make it deeper. Which classes there are is none of this module's business; see
:mod:`agentao_trio.messages`.

A message without surprises is written and read by generated functions (:mod:`agentao_trio.shapes`). They hand back
whatever else there is, and it is gone through field by field here, where the refusals are.

Reading raises ``RemoteProtocolError``, whose ``reason`` is one of ``truncated_header``, ``bad_payload_size``,
``payload_size_past_end``, ``incompatible``, ``field_truncated``, ``negative_length``, ``length_past_end`` and
``bad_count``, and whose ``offset`` is where in the bytes the untrue number stands.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from enum import IntEnum
from functools import cached_property
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from agentao_trio.errors import LocalProtocolError, RemoteProtocolError
from agentao_trio.shapes import Part, make_reader, make_writer

__all__ = [
    "BOOL",
    "BYTES",
    "DOUBLE",
    "INT8",
    "INT32",
    "INT64",
    "TEXT",
    "UINT16",
    "UINT32",
    "UINT64",
    "Decoded",
    "Enumeration",
    "Field",
    "Kind",
    "Layout",
    "Vector",
    "holds_envelope",
]

_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")
_HEADER = struct.Struct("<BBi")

T = TypeVar("T")


def holds_envelope(data: bytes, start: int) -> bool:
    """Whether ``data`` has room for the envelope that begins at ``start``, going by the size it claims."""
    room = len(data) - start - _HEADER.size
    if room < 0:
        return False
    _, _, size = _HEADER.unpack_from(data, start)
    return bool(0 <= size <= room)


# -- kinds of field ---------------------------------------------------------------------------------------------------


class Kind(Protocol):
    """How one field is written. ``name`` is what messages about it call it."""

    @property
    def name(self) -> str: ...

    def pack(self, value: Any) -> bytes:
        """The field's bytes. Raises TypeError or ValueError, whose message says what would be right."""


class _Fixed:
    """A field of constant size; ``code`` is its letter in the :mod:`struct` module."""

    def __init__(self, name: str, code: str) -> None:
        self.name = name
        self.code = code
        self.struct: struct.Struct = struct.Struct("<" + code)


class _Integer(_Fixed):
    def __init__(self, name: str, code: str) -> None:
        super().__init__(name, code)
        bits = 8 * self.struct.size
        self._lowest = 0 if code.isupper() else -(1 << bits - 1)
        self._highest = self._lowest + (1 << bits) - 1

    def pack(self, value: Any) -> bytes:
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"takes a whole number ({self.name}), not {_kind_of(value)}")
        if not self._lowest <= value <= self._highest:
            raise ValueError(f"takes {self.name}: no less than {self._lowest}, no more than {self._highest}")
        return self.struct.pack(value)


class _Double(_Fixed):
    def pack(self, value: Any) -> bytes:
        if not isinstance(value, (float, int)) or isinstance(value, bool):
            raise TypeError(f"takes a number ({self.name}), not {_kind_of(value)}")
        try:
            return self.struct.pack(value)
        except (OverflowError, struct.error):
            raise ValueError(f"takes {self.name}: this whole number is too large for one") from None


class _Bool(_Fixed):
    def pack(self, value: Any) -> bytes:
        if not isinstance(value, bool):
            raise TypeError(f"takes True or False, not {_kind_of(value)}")
        return self.struct.pack(value)


INT8 = _Integer("int8", "b")
UINT16 = _Integer("uint16", "H")
INT32 = _Integer("int32", "i")
UINT32 = _Integer("uint32", "I")
INT64 = _Integer("int64", "q")
UINT64 = _Integer("uint64", "Q")
DOUBLE = _Double("double", "d")
BOOL = _Bool("bool", "?")  # reads any byte but 0 as True


class Enumeration(_Integer):
    """An integer, carried as int32 unless told otherwise, some of whose values have names. The others stay numbers."""

    def __init__(self, members: type[IntEnum], carrier: _Integer = INT32) -> None:
        super().__init__(carrier.name, carrier.code)
        self.named: dict[int, int] = {member.value: member for member in members}

    def __repr__(self) -> str:
        return f"<Enumeration of {len(self.named)} names as {self.name}>"


class _Text:
    """UTF-8 as far as it goes; a byte that is not becomes a lone surrogate, and comes back as the same byte."""

    name = "text"

    def pack(self, value: Any) -> bytes:
        if not isinstance(value, str):
            raise TypeError(f"takes text (str), not {_kind_of(value)}")
        try:
            return _counted(value.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError as error:
            raise ValueError(
                f"takes text: its character {error.start} is a surrogate that stands for no byte"
            ) from None

    def read(self, data: bytes, offset: int, end: int, values: list[Any]) -> int:
        start, stop = _span(data, offset, end)
        values.append(data[start:stop].decode("utf-8", "surrogateescape"))
        return stop


class _Bytes:
    name = "bytes"

    def pack(self, value: Any) -> bytes:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise TypeError(f"takes bytes, not {_kind_of(value)}")
        return _counted(bytes(value))

    def read(self, data: bytes, offset: int, end: int, values: list[Any]) -> int:
        start, stop = _span(data, offset, end)
        values.append(data[start:stop])
        return stop


TEXT = _Text()
BYTES = _Bytes()


class Vector:
    """A :class:`Kind`: a count and that many envelopes of one class; a tuple in the program."""

    def __init__(self, element: Layout[Any]) -> None:
        self.element = element
        self.name: str = f"list of {element.cls.__name__}"

    def __repr__(self) -> str:
        return f"<Vector, {self.name}>"

    def pack(self, value: Any) -> bytes:
        if not isinstance(value, (tuple, list)):
            raise TypeError(f"takes a {self.name}, not {_kind_of(value)}")
        parts = [_U32.pack(len(value))]
        for index, element in enumerate(value):
            try:
                parts.append(self.element.encode(element))
            except LocalProtocolError as why:
                raise ValueError(f"has a wrong element {index}: {why}") from None
        return b"".join(parts)

    def read(self, data: bytes, offset: int, end: int, values: list[Any]) -> int:
        """Append the tuple to ``values``, and return the offset behind it."""
        cursor = offset + _U32.size
        if cursor > end:
            raise _cut(offset)
        (count,) = _U32.unpack_from(data, offset)
        # No element is smaller than its header: a count that this allows is paid for by bytes that have arrived.
        if count > (end - cursor) // _HEADER.size:
            raise RemoteProtocolError(
                f"a list claims {count} elements, {end - cursor} bytes are there", reason="bad_count", offset=offset
            )
        elements = []
        for _ in range(count):
            decoded = self.element.decode_by_field(data, cursor, end)
            elements.append(decoded.message)
            cursor = end - decoded.after
        values.append(tuple(elements))
        return cursor


def _counted(raw: bytes) -> bytes:
    try:
        return _I32.pack(len(raw)) + raw
    except struct.error:
        raise ValueError(f"holds no more than {2**31 - 1} bytes") from None


def _span(data: bytes, offset: int, end: int) -> tuple[int, int]:
    """Where the content of the string field at ``offset`` starts and stops."""
    start = offset + _I32.size
    if start > end:
        raise _cut(offset)
    (length,) = _I32.unpack_from(data, offset)
    if length < 0:
        raise RemoteProtocolError(f"a string claims a length of {length}", reason="negative_length", offset=offset)
    stop = start + length
    if stop > end:
        raise RemoteProtocolError(
            f"a string claims {length} bytes, {end - start} are there", reason="length_past_end", offset=offset
        )
    return start, stop


def _cut(offset: int) -> RemoteProtocolError:
    return RemoteProtocolError("an envelope ends within a field", reason="field_truncated", offset=offset)


def _kind_of(value: object) -> str:
    """What was given, for a message. Never the value itself: it may be a token or somebody's telephone number."""
    return "None" if value is None else type(value).__name__


# -- envelopes --------------------------------------------------------------------------------------------------------


class Field(NamedTuple):
    """One field of a class: the attribute, how it is written, and its value where an older writer stopped before it."""

    name: str
    kind: Kind
    default: Any


class Decoded(NamedTuple, Generic[T]):
    """One envelope, read: ``skipped`` bytes of it are a newer writer's fields, ``after`` bytes follow behind it."""

    message: T
    skipped: int
    after: int


#: Reads fields that begin at an offset, none behind the end, into the list; returns the offset behind them.
_Reader = Callable[[bytes, int, int, list[Any]], int]


class Layout(Generic[T]):
    """The envelope of one class: its fields in wire order, the version we write, the oldest reader that may read it.

    ``cls`` is a class with ``__slots__`` named as the fields.
    """

    def __init__(self, cls: type[T], fields: Iterable[Field], *, version: int, compat: int) -> None:
        self.cls = cls
        self.fields: tuple[Field, ...] = tuple(fields)
        self.version = version
        self.compat = compat
        self._readers = list(_plan(self.fields))
        self._defaults = [field.default for field in self.fields]
        self._named = [
            (index, field.kind.named) for index, field in enumerate(self.fields) if isinstance(field.kind, Enumeration)
        ]
        self._slots = [getattr(cls, field.name).__set__ for field in self.fields]

    def __repr__(self) -> str:
        return f"<Layout of {self.cls.__name__}, {len(self.fields)} fields, version {self.version}>"

    # Made when they are first needed: most programs meet a few of the messages, and all would cost the import a tenth.
    @cached_property
    def _write_plain(self) -> Callable[[Any], bytes | None]:
        parts = _parts(self.fields)
        return _left_to_others if parts is None else make_writer(parts, self.version, self.compat)

    @cached_property
    def _read_plain(self) -> Callable[[bytes], T | None]:
        parts = _parts(self.fields)
        return _left_to_others if parts is None else make_reader(self.cls, parts, self.version)

    def encode(self, message: Any) -> bytes:
        """The envelope of ``message``. Raises ``LocalProtocolError`` naming class, field and what would be right."""
        data = self._write_plain(message) if type(message) is self.cls else None
        return self.encode_by_field(message) if data is None else data

    def encode_by_field(self, message: Any) -> bytes:
        """The same, one field after the other: slower, and where the refusals come from."""
        if type(message) is not self.cls:
            raise LocalProtocolError(f"takes a {self.cls.__name__}, not {_kind_of(message)}")
        parts = [b""]
        for name, kind, _ in self.fields:
            try:
                parts.append(kind.pack(getattr(message, name)))
            except (TypeError, ValueError) as why:
                raise LocalProtocolError(f"{self.cls.__name__}.{name} {why}") from None
        try:
            parts[0] = _HEADER.pack(self.version, self.compat, sum(map(len, parts)))
        except struct.error:
            raise LocalProtocolError(f"{self.cls.__name__} holds no more than {2**31 - 1} bytes") from None
        return b"".join(parts)

    def decode(self, data: bytes) -> T:
        """Read the envelope that begins ``data``."""
        message = self._read_plain(data)
        return self.decode_by_field(data, 0, len(data)).message if message is None else message

    def decode_by_field(self, data: bytes, offset: int, limit: int) -> Decoded[T]:
        """Read the envelope that begins at ``offset`` and may not reach behind ``limit``, one field after the other."""
        start = offset + _HEADER.size
        if start > limit:
            raise self._refusal("ends within its envelope header", "truncated_header", offset)
        _, compat, size = _HEADER.unpack_from(data, offset)
        end = start + size
        if size < 0:
            raise self._refusal(f"claims a size of {size}", "bad_payload_size", offset + 2)
        if end > limit:
            raise self._refusal(f"claims {size} bytes, {limit - start} are there", "payload_size_past_end", offset + 2)
        if compat > self.version:
            raise self._refusal(f"asks for a reader of version {compat}", "incompatible", offset + 1)
        values: list[Any] = []
        cursor = start
        for read in self._readers:
            # Exactly here is where an older writer stopped; what is missing takes its defaults.
            if cursor == end:
                break
            cursor = read(data, cursor, end, values)
        values += self._defaults[len(values) :]
        for index, named in self._named:
            values[index] = named.get(values[index], values[index])
        message = object.__new__(self.cls)
        for fill, value in zip(self._slots, values, strict=True):
            fill(message, value)
        return Decoded(message, end - cursor, limit - end)

    def _refusal(self, what: str, reason: str, offset: int) -> RemoteProtocolError:
        return RemoteProtocolError(f"{self.cls.__name__} {what}", reason=reason, offset=offset)


def _left_to_others(_: Any) -> None:
    """What writes and reads a class with a list in it: nothing that is generated."""


def _parts(fields: Iterable[Field]) -> list[Part] | None:
    """The fields as the generated functions know them; None where there is a list, which they do not know."""
    parts = []
    for name, kind, _ in fields:
        if isinstance(kind, Vector):
            return None
        if isinstance(kind, Enumeration):
            parts.append(Part(name, kind.code, kind.named))
        else:
            parts.append(Part(name, kind.code if isinstance(kind, _Fixed) else kind.name))
    return parts


def _plan(fields: Iterable[Field]) -> Iterable[_Reader]:
    """One reader for each run of fields of constant size, one for each field that tells its own."""
    run: list[_Fixed] = []
    for field in fields:
        if isinstance(field.kind, _Fixed):
            run.append(field.kind)
            continue
        if run:
            yield _run_reader(run)
            run = []
        assert isinstance(field.kind, (_Text, _Bytes, Vector))
        yield field.kind.read
    if run:
        yield _run_reader(run)


def _run_reader(run: list[_Fixed]) -> _Reader:
    whole = struct.Struct("<" + "".join(kind.code for kind in run))
    singles = [kind.struct for kind in run]

    def read(data: bytes, offset: int, end: int, values: list[Any]) -> int:
        if offset + whole.size <= end:
            values += whole.unpack_from(data, offset)
            return offset + whole.size
        for single in singles:
            if offset == end:
                break
            if offset + single.size > end:
                raise _cut(offset)
            values += single.unpack_from(data, offset)
            offset += single.size
        return offset

    return read
