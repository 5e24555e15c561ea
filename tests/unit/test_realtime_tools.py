"""Functions as tools of a model: what it is told of them, and what becomes of its arguments."""

from __future__ import annotations

import enum
import functools
from typing import Annotated, Any, Literal

import attrs
import pytest

from agentao_trio.realtime.tools import (
    TOOL_SECONDS,
    Line,
    Tool,
    as_tool,
    hangup,
    output_text,
    send_dtmf,
    tool,
    transfer,
)


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@attrs.frozen
class Address:
    street: str
    number: int = 1


async def order(
    what: Annotated[str, "as on the menu"],
    count: int = 1,
    *,
    size: Size = Size.SMALL,
    extras: list[str] | None = None,
    to: Address | None = None,
    when: Literal["now", "later"] = "now",
) -> str:
    """Order something.

    The kitchen is told at once.
    """
    return what


def test_a_signature_tells_the_model_everything() -> None:
    made = tool(order)
    assert made.name == "order"
    assert made.description == "Order something.\n\nThe kitchen is told at once."
    assert made.parameters == {
        "type": "object",
        "properties": {
            "what": {"type": "string", "description": "as on the menu"},
            "count": {"type": "integer"},
            "size": {"$ref": "#/$defs/Size"},
            "extras": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
            "to": {"anyOf": [{"$ref": "#/$defs/Address"}, {"type": "null"}]},
            "when": {"enum": ["later", "now"]},
        },
        "required": ["what"],
        "additionalProperties": False,
        "$defs": {
            "Size": {"title": "Size", "enum": ["large", "small"]},
            "Address": {
                "title": "Address",
                "type": "object",
                "properties": {"street": {"type": "string"}, "number": {"type": "integer", "default": 1}},
                "required": ["street"],
            },
        },
    }


def test_arguments_become_what_the_function_takes() -> None:
    arguments = tool(order).arguments('{"what": "soup", "size": "large", "to": {"street": "Main"}, "extras": ["salt"]}')
    assert arguments == {"what": "soup", "size": Size.LARGE, "to": Address("Main"), "extras": ["salt"]}
    assert tool(order).arguments('{"what": "soup"}') == {"what": "soup"}, "defaults stay the function's own"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "missing required field `what`"),
        ('{"what": 1}', "Expected `str`"),
        ('{"what": "soup", "how": "hot"}', "unknown field `how`"),
        ('{"what": "soup", "size": "huge"}', "Invalid enum value 'huge'"),
        ("[]", "Expected `object`"),
        ("soup", "malformed"),
    ],
)
def test_wrong_arguments_are_told_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tool(order).arguments(text)


def test_no_arguments_may_be_no_text() -> None:
    def clock() -> str:
        return "noon"

    assert tool(clock).arguments("") == tool(clock).arguments(" {} ") == {}


def test_a_schema_of_ones_own() -> None:
    def anything(**found: Any) -> None: ...

    schema = {"type": "object", "properties": {"x": {"type": "number"}}}
    made = tool(anything, name="any-thing", description="Takes all.", parameters=schema, deadline=2)
    assert (made.name, made.description, made.parameters) == ("any-thing", "Takes all.", schema)
    assert made.arguments('{"x": 1, "y": null}') == {"x": 1, "y": None}
    assert made.deadline == 2


class Lookup:
    async def __call__(self, key: str) -> str:
        return key

    def method(self, key: str) -> str:
        return key


@pytest.mark.parametrize(
    ("function", "is_async"),
    [
        (order, True),
        (Lookup(), True),
        (Lookup().method, False),
        (functools.partial(order, count=2), True),
    ],
)
def test_async_functions_are_told_apart_at_once(function: Any, is_async: bool) -> None:
    assert tool(function, name="found").is_async is is_async


def test_a_partial_keeps_its_types() -> None:
    made = tool(functools.partial(order, size=Size.LARGE), name="order")
    assert made.arguments('{"what": "soup"}') == {"what": "soup"}


def _untyped(x): ...  # type: ignore[no-untyped-def]
def _positional(x: int, /) -> None: ...
def _rest(*x: int) -> None: ...
def _unknown(x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize("function", [_untyped, _positional, _rest, _unknown])
def test_a_function_that_cannot_be_told_is_refused_by_name(function: Any) -> None:
    with pytest.raises(TypeError, match=function.__name__):
        tool(function)


@pytest.mark.parametrize("name", ["", "two words", "x" * 65, "naïve"])
def test_a_name_the_model_would_not_take(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a tool"):
        Tool(name=name, parameters={}, function=order)


def test_no_time_is_not_enough() -> None:
    with pytest.raises(ValueError, match="more time"):
        tool(order, deadline=0)


def test_a_tool_is_a_tool_already() -> None:
    made = tool(order, deadline=5)
    assert as_tool(made) is made
    assert as_tool(order).deadline == TOOL_SECONDS


@pytest.mark.parametrize(
    ("value", "text"), [("as it is", "as it is"), (None, "done"), ({"a": [1, True]}, '{"a":[1,true]}'), (3, "3")]
)
def test_what_the_model_is_told_of_a_result(value: object, text: str) -> None:
    assert output_text(value) == text


def test_a_result_that_cannot_be_told() -> None:
    with pytest.raises(TypeError):
        output_text(object())


# -- ready-made -----------------------------------------------------------------------------------------------------


class Telephone:
    def __init__(self) -> None:
        self.done: list[Any] = []

    async def hangup(self) -> None:
        self.done.append("hangup")

    async def transfer(self, to: str) -> None:
        self.done.append(to)

    async def send_dtmf(self, digits: str) -> None:
        self.done.append(digits)


async def use(made: Tool, arguments: str) -> list[Any]:
    telephone: Line = Telephone()
    assert made.takes_line
    await made.function(telephone, **made.arguments(arguments))
    return telephone.done  # type: ignore[attr-defined, no-any-return]


async def test_hanging_up() -> None:
    assert hangup().farewell
    assert await use(hangup(), '{"reason": "models like to explain themselves"}') == ["hangup"]


async def test_a_transfer_goes_where_the_program_says() -> None:
    assert transfer("+15550100001").farewell
    assert await use(transfer("+15550100001"), '{"to": "+15550199999"}') == ["+15550100001"]
    desks = transfer({"sales": "+15550100001", "support": "sip:help@example.com"})
    assert desks.parameters["properties"] == {"to": {"enum": ["sales", "support"]}}
    assert await use(desks, '{"to": "support"}') == ["sip:help@example.com"]
    with pytest.raises(ValueError, match="Invalid enum value"):
        desks.arguments('{"to": "+15550199999"}')
    with pytest.raises(ValueError, match="somebody"):
        transfer({})


async def test_keys() -> None:
    assert not send_dtmf().farewell
    assert await use(send_dtmf(), '{"digits": "12#A"}') == ["12#A"]
    with pytest.raises(ValueError, match="matching regex"):
        send_dtmf().arguments('{"digits": "call me"}')
