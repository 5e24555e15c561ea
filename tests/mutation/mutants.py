"""Small faults that somebody could have written, one at a time, into the syntax tree of a module.

What is only text for people is left alone: docstrings, whatever is logged, the words of exceptions, ``__repr__``, and
strings with a space in them. So are annotations, decorators and assertions, which guard invariants of their own.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import attrs

__all__ = ["Mutant", "mutants_of"]

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_UNTOUCHED_FIELDS = {"annotation", "returns", "decorator_list", "type_comment", "format_spec", "ops", "op", "ctx"}


@attrs.frozen(kw_only=True)
class Mutant:
    """One change. ``apply`` makes it in the tree that it was found in."""

    path: Path
    #: Lines whose tests might notice.
    lines: frozenset[int]
    text: str
    apply: Callable[[], None]

    def __str__(self) -> str:
        return f"{self.path.name}:{min(self.lines)}: {self.text}"


def mutants_of(path: Path, tree: ast.Module, only: Collection[str] | None) -> list[Mutant]:
    """Every mutant of a module, always in the same order; ``only`` within the definitions of these names."""
    found: list[Mutant] = []
    for statement in tree.body:
        for name, part in _definitions(statement):
            if only is None or name in only:
                found += _within(path, part)
    return found


def _definitions(statement: ast.stmt) -> Iterator[tuple[str, ast.stmt]]:
    """What a statement of a module defines, methods one by one."""
    match statement:
        case ast.ClassDef(body=body):
            for each in body:
                yield from _definitions(each)
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            if name != "__repr__":
                yield name, statement
        case ast.Assign(targets=[target]) | ast.AnnAssign(target=target) if ast.unparse(target) != "__all__":
            yield ast.unparse(target), statement


def _within(path: Path, statement: ast.stmt, node: ast.AST | None = None) -> Iterator[Mutant]:
    """The mutants of one statement, or of a part of it."""
    node = node or statement
    for field, value in ast.iter_fields(node):
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or field in _UNTOUCHED_FIELDS or _is_for_people(node, field, index):
                continue
            inner = child if isinstance(child, ast.stmt) else statement
            if isinstance(child, ast.expr | ast.stmt):
                lines = frozenset({inner.lineno, *range(child.lineno, (child.end_lineno or child.lineno) + 1)})
                for text, new in _changes(node, field, child):
                    apply = _replacing(node, field, index if isinstance(value, list) else None, new)
                    yield Mutant(path=path, lines=lines, text=text, apply=apply)
            yield from _within(path, inner, child)


def _replacing(parent: ast.AST, field: str, index: int | None, new: ast.AST) -> Callable[[], None]:
    def apply() -> None:
        if index is None:
            setattr(parent, field, new)
        else:
            getattr(parent, field)[index] = new

    return apply


def _is_for_people(node: ast.AST, field: str, index: int) -> bool:
    """Whether what stands there is read by nobody but people, or by type checkers."""
    match node:
        case ast.Assert():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Call(func=func) if field == "args":
            name = ast.unparse(func)
            return name.startswith(("log.", "TypeVar")) or (index == 0 and name.endswith(("Error", "_refusal", "Lost")))
    return False


def _changes(parent: ast.AST, field: str, node: ast.expr | ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    def became(new: ast.AST) -> tuple[str, ast.AST]:
        return f"{_short(node)}  ->  {_short(new)}", ast.copy_location(new, node)

    match node:
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            for index, operator in enumerate(ops):
                swapped = _COMPARISONS[type(operator)]()
                yield became(ast.Compare(left, [*ops[:index], swapped, *ops[index + 1 :]], comparators))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            yield became(ast.BinOp(left, _OPERATORS[type(op)](), right))
        case ast.BoolOp(op=op, values=values):
            yield became(ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values))
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield became(operand)
        case ast.Constant(value=bool(value)):
            yield became(ast.Constant(not value))
        case ast.Constant(value=int(value) | float(value)):
            yield became(ast.Constant(value + 1))
            yield became(ast.Constant(value - 1))
        case ast.Constant(value=str(value)) if " " not in value and not isinstance(parent, ast.JoinedStr):
            yield became(ast.Constant(value + "x"))
        case ast.Constant(value=bytes(value)):
            yield became(ast.Constant(value + b"x"))
        case ast.AugAssign(target=target, op=op, value=value) if type(op) in _OPERATORS:
            yield became(ast.AugAssign(target, _OPERATORS[type(op)](), value))
    if field == "test" and isinstance(parent, ast.If | ast.While | ast.IfExp):
        yield f"if {_short(node)}  ->  negated", ast.copy_location(ast.UnaryOp(ast.Not(), node), node)  # type: ignore[arg-type]
    match node:
        case ast.Return(value=ast.expr() as result) if ast.unparse(result) != "None":
            yield became(ast.Return(ast.Constant(None)))
        case ast.Break():
            yield became(ast.Continue())
        case ast.Continue():
            yield became(ast.Break())
        case ast.Expr(value=ast.Constant() | ast.Call(func=ast.Attribute(value=ast.Name("log")))):
            pass
        case ast.Expr() | ast.Raise() | ast.Delete() | ast.AugAssign() | ast.Return(value=None):
            yield became(ast.Pass())
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield became(ast.Pass())


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(ast.fix_missing_locations(node)).split())
    return text if len(text) <= 70 else f"{text[:67]}..."
