"""The same audio frame and event in msgpack and in protobuf, where these packages are installed.

They are what a protocol of today would have used. Protobuf's messages are described at run time, so that no compiler is
needed; the classes are the ones a compiler's output makes.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import attrs

from agentao_trio.messages import AudioFrame, CallEvent, Message


class Format(NamedTuple):
    """Writing and reading one class of message; ``missing`` names the package that is not installed."""

    name: str
    encode: Callable[[Message], bytes]
    decode: Callable[[bytes], object]
    missing: str = ""


def formats(cls: type[Message]) -> list[Format]:
    """Every format there is to compare ``cls`` in."""
    return [_msgpack(cls), _protobuf(cls)]


def _absent(name: str) -> Format:
    return Format(name, lambda message: b"", lambda data: None, missing=f"{name} is not installed")


def _names(cls: type[Message]) -> list[str]:
    return [attribute.name for attribute in attrs.fields(cls)]


def _msgpack(cls: type[Message]) -> Format:
    if importlib.util.find_spec("msgpack") is None:
        return _absent("msgpack")
    msgpack: Any = importlib.import_module("msgpack")
    names = _names(cls)

    def encode(message: Message) -> bytes:
        packed: bytes = msgpack.packb({name: getattr(message, name) for name in names})
        return packed

    # As one would: a map of names on the wire, a message in the program.
    return Format("msgpack", encode, lambda data: cls(**msgpack.unpackb(data)))


#: descriptor.proto: the numbers of its field types.
_TYPES: Mapping[str, int] = {
    "text": 9,
    "bytes": 12,
    "bool": 8,
    "double": 1,
    "int32": 5,
    "int64": 3,
    "uint32": 13,
    "uint64": 4,
}
_KINDS: Mapping[type[Message], tuple[str, ...]] = {
    AudioFrame: ("text", "bytes", "text", "uint64", "bool"),
    CallEvent: (
        *("text", "int32", "text", "int64", "int32", "text", "int32", "int64", "int64", "uint32", "uint32"),
        *("uint32", "uint64", "double", "double", "text", "text", "text", "int64", "text"),
    ),
}


def _protobuf(cls: type[Message]) -> Format:
    if importlib.util.find_spec("google") is None or importlib.util.find_spec("google.protobuf") is None:
        return _absent("protobuf")
    descriptor_pb2: Any = importlib.import_module("google.protobuf.descriptor_pb2")
    descriptor_pool: Any = importlib.import_module("google.protobuf.descriptor_pool")
    message_factory: Any = importlib.import_module("google.protobuf.message_factory")
    described = descriptor_pb2.FileDescriptorProto(name=f"{cls.__name__}.proto", package="bench", syntax="proto3")
    message = described.message_type.add(name=cls.__name__)
    names = _names(cls)
    for number, (name, kind) in enumerate(zip(names, _KINDS[cls], strict=True), start=1):
        message.field.add(name=name, number=number, type=_TYPES[kind], label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(described)
    generated: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"bench.{cls.__name__}"))

    def encode(message: Message) -> bytes:
        written: bytes = generated(**{name: getattr(message, name) for name in names}).SerializeToString()
        return written

    return Format("protobuf", encode, generated.FromString)
