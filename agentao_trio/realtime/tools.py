"""What a model may have done for it: functions of the program, and what can be done to the call.

A *tool* is any function, plain or ``async``. Its name, docstring and the types of its parameters are what the model is
told, and what the model's arguments are checked and converted by::

    async def find_order(number: Annotated[str, "as printed on the receipt"], urgent: bool = False) -> str:
        \"""Look an order up.\"""

Most tools need something of the call they serve: define them where that is in scope, as closures. A plain function
must not block; what does belongs into ``trio.to_thread``. What a tool returns is what the model is told: text as it is,
anything else as JSON. "There is no such order" is a result; an exception is a mistake of the program.

:func:`hangup`, :func:`transfer` and :func:`send_dtmf` make the tools that act on the call itself.
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Protocol

import attrs
import msgspec

__all__ = ["TOOL_SECONDS", "Line", "Tool", "as_tool", "hangup", "output_text", "send_dtmf", "tool", "transfer"]

#: Seconds a tool may take unless told otherwise. A caller hears nothing meanwhile.
TOOL_SECONDS = 30.0
#: Characters of a result that a model is told. More is a mistake, which would fill the conversation's memory.
LONGEST_OUTPUT = 100_000

JSONSchema = Mapping[str, Any]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")


class Line(Protocol):
    """What the ready-made tools need of a call."""

    async def hangup(self) -> None: ...
    async def transfer(self, to: str) -> None: ...
    async def send_dtmf(self, digits: str) -> None: ...


def _check_name(_: object, __: object, name: str) -> None:
    if not _NAME.match(name):
        raise ValueError(f"{name!r} cannot name a tool: letters, digits, '_' and '-', at most 64 of them")


def _check_seconds(_: object, __: object, seconds: float) -> None:
    if not seconds > 0:
        raise ValueError(f"a tool needs more time than {seconds!r} seconds")


@attrs.frozen(kw_only=True)
class Tool:
    """One function a model may call. Made by :func:`tool`, and by the three for what is ready-made.

    ``function`` is called with the model's arguments by keyword; with the :class:`Line` before them if ``takes_line``.
    A ``farewell`` ends the model's part in the call: it is carried out once, after what is being said has been heard.
    """

    name: str = attrs.field(validator=_check_name)
    description: str = ""
    #: The arguments, as JSON Schema.
    parameters: JSONSchema
    function: Callable[..., Any] = attrs.field(repr=False)
    #: Seconds after which it is cancelled and the model told so.
    deadline: float = attrs.field(default=TOOL_SECONDS, validator=_check_seconds)
    takes_line: bool = False
    farewell: bool = False
    _arguments: Any = attrs.field(default=dict[str, Any], repr=False)

    @property
    def is_async(self) -> bool:
        """Whether calling ``function`` gives something to be awaited."""
        function = self.function
        return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - an object whose method it is
        )

    def arguments(self, text: str) -> dict[str, Any]:
        """The model's arguments as keywords of the function. Raises ValueError, in words that the model understands."""
        found = msgspec.json.decode(text.strip() or "{}", type=self._arguments)
        if isinstance(found, msgspec.Struct):
            return {name: value for name, value in msgspec.structs.asdict(found).items() if value is not msgspec.UNSET}
        return dict(found)


def tool(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    description: str | None = None,
    parameters: JSONSchema | None = None,
    deadline: float = TOOL_SECONDS,
) -> Tool:
    """``function`` as a tool, where something is to be said that it does not say itself.

    ``name`` and ``description`` are the function's own name and docstring unless given. ``parameters`` is a JSON Schema
    in place of that of the signature; arguments are then passed on as they come. ``deadline`` is in seconds.

    Raises TypeError for a function whose parameters cannot be told from its signature, and ValueError for a name that
    no tool can have.
    """
    if name is None:
        name = str(getattr(function, "__name__", type(function).__name__))
    arguments: Any = dict[str, Any]
    if parameters is None:
        arguments = _struct(function, name)
        parameters = _schema(arguments)
    if description is None:
        description = inspect.getdoc(function) or ""
    return Tool(
        name=name,
        description=description,
        parameters=parameters,
        function=function,
        deadline=deadline,
        arguments=arguments,
    )


def as_tool(given: Tool | Callable[..., Any]) -> Tool:
    """A tool as it is, and a function as one."""
    return given if isinstance(given, Tool) else tool(given)


def output_text(value: object) -> str:
    """What a model is told of a tool's result, cut where nobody would read it to its end.

    Raises TypeError for a result that JSON cannot express.
    """
    if value is None:
        return "done"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if len(text) <= LONGEST_OUTPUT:
        return text
    return f"{text[:LONGEST_OUTPUT]} … (cut here, after {LONGEST_OUTPUT} of {len(text)} characters)"


_NOTHING: JSONSchema = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
#: What no arguments are decoded into: whatever a model adds to none is ignored.
_Nothing: Any = msgspec.defstruct("nothing", [])


# -- ready-made -----------------------------------------------------------------------------------------------------


def hangup(*, description: str = "End the phone call. Say goodbye to the caller before you use this.") -> Tool:
    """A tool that hangs up, once the goodbye has been heard, after ten seconds at the latest."""

    async def hang_up(line: Line) -> None:
        await line.hangup()

    return Tool(
        name="hangup",
        description=description,
        parameters=_NOTHING,
        function=hang_up,
        takes_line=True,
        farewell=True,
        arguments=_Nothing,
    )


def transfer(
    to: str | Mapping[str, str], *, description: str = "Transfer the caller to somebody else. Tell them so before."
) -> Tool:
    """A tool that transfers the caller: to ``to``, or to one of several by the names that a mapping gives them.

    Destinations are E.164 numbers or SIP URIs. The model never chooses a number itself. Raises ValueError for a mapping
    without any.
    """
    function: Callable[..., Any]
    if isinstance(to, str):
        arguments, parameters = _Nothing, _NOTHING

        async def transfer_there(line: Line) -> None:
            await line.transfer(to)

        function = transfer_there
    else:
        destinations = dict(to)
        if not destinations:
            raise ValueError("transfer() needs somebody to transfer to")
        one_of_them = typing.Literal[tuple(destinations)]  # type: ignore[valid-type]
        arguments = msgspec.defstruct("transfer", [("to", one_of_them)], kw_only=True)
        parameters = _schema(arguments)

        async def transfer_to(line: Line, to: str) -> None:
            await line.transfer(destinations[to])

        function = transfer_to
    return Tool(
        name="transfer",
        description=description,
        parameters=parameters,
        function=function,
        takes_line=True,
        farewell=True,
        arguments=arguments,
    )


def send_dtmf(*, description: str = "Press keys of the telephone, as in a menu: 0-9, *, #, A-D.") -> Tool:
    """A tool that sends DTMF digits to the far end."""

    async def press(line: Line, digits: str) -> str:
        await line.send_dtmf(digits)
        return f"pressed {digits}"

    digits = Annotated[str, msgspec.Meta(pattern="^[0-9*#A-D]{1,32}$")]
    arguments = msgspec.defstruct("send_dtmf", [("digits", digits)], kw_only=True, forbid_unknown_fields=True)
    return Tool(
        name="send_dtmf",
        description=description,
        parameters=_schema(arguments),
        function=press,
        takes_line=True,
        arguments=arguments,
    )


# -- signatures -----------------------------------------------------------------------------------------------------


def _struct(function: Callable[..., Any], name: str) -> Any:
    """The function's parameters as a type that JSON can be decoded into; those with a default may be missing."""
    try:
        signature = inspect.signature(function)
        hints = typing.get_type_hints(_annotated(function), include_extras=True)
    except (NameError, TypeError, ValueError) as error:
        raise TypeError(f"the parameters of the tool {name!r} cannot be told: {error}") from error
    fields: list[Any] = []
    for parameter in signature.parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"the tool {name!r} is called by keyword, which its parameter {parameter} does not allow")
        if parameter.name not in hints:
            raise TypeError(f"the tool {name!r} does not say what type its parameter {parameter.name!r} has")
        hint = _described(hints[parameter.name])
        if parameter.default is parameter.empty:
            fields.append((parameter.name, hint))
        else:
            fields.append((parameter.name, hint | msgspec.UnsetType, msgspec.UNSET))
    return msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)


def _annotated(function: Callable[..., Any]) -> Any:
    """Where the annotations are: behind a partial, in a method, in the ``__call__`` of an object."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) else type(function).__call__


def _described(hint: Any) -> Any:
    """``Annotated[str, "words"]`` with the words where the schema wants them."""
    if typing.get_origin(hint) is not Annotated:
        return hint
    inner, *notes = typing.get_args(hint)
    known = [msgspec.Meta(description=note) if isinstance(note, str) else note for note in notes]
    return functools.reduce(lambda built, note: Annotated[built, note], known, inner)


def _schema(arguments: Any) -> dict[str, Any]:
    (reference,), components = msgspec.json.schema_components([arguments], ref_template="#/$defs/{name}")
    schema: dict[str, Any] = components.pop(reference["$ref"].rpartition("/")[2])
    schema.pop("title", None)
    if components:
        schema["$defs"] = components
    return schema
