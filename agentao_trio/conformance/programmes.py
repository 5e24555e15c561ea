"""What is done to a gateway so that a rule can be judged: one short programme per rule, over the kit's own connections.

A programme drives; it never judges. It may give up early by raising :class:`Unsupported` (the target does not offer
what the rule is about) or :class:`Inconclusive` (something else went wrong on the way there).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
from hypothesis import strategies as st

__all__ = ["PROGRAMMES", "Inconclusive", "Programme", "Unsupported", "programme"]


class Unsupported(Exception):  # noqa: N818 - a verdict, not an error
    """The target does not offer what the rule is about; the message says what is missing."""


class Inconclusive(Exception):  # noqa: N818 - a verdict, not an error
    """The rule's precondition did not come about; the message says which."""


@attrs.frozen(kw_only=True)
class Programme:
    """How one rule is provoked."""

    id: str
    run: Callable[..., Awaitable[None]] = attrs.field(eq=False, repr=False)
    #: Destinations it calls: answer, busy, noanswer, invalid, loopback. Empty: it places no call.
    roles: frozenset[str] = frozenset()
    #: It sends what no client should: needs leave to be hostile.
    hostile: bool = False
    #: It waits for minutes: needs leave to be slow.
    slow: bool = False
    #: Seconds that it does nothing but wait: it is begun before others.
    waits: float = 0.0
    #: What it looks at is a matter of milliseconds: nothing is concluded on a bad path.
    timing: bool = False
    #: What the target has to have, in the profile's words: "token", "second_tenant", "second_client" …
    capabilities: frozenset[str] = frozenset()
    #: What it would rather have: of a target that comes in several kinds, it is run on one that has it.
    prefers: frozenset[str] = frozenset()
    #: It stops streams, loses datagrams or goes away: its trace is no evidence for other rules.
    disturbs: bool = False
    #: Draws the example that ``run`` is called with after the kit, of plain JSON values; None where there is none.
    example: st.SearchStrategy[Any] | None = attrs.field(default=None, eq=False, repr=False)
    #: Faults of the embedded gateway that this check has to notice.
    faults: tuple[str, ...] = ()
    #: Calls it places at most.
    calls: int = 1


#: Every programme, by the id of the rule it provokes.
PROGRAMMES: dict[str, Programme] = {}


def programme(
    identity: str,
    *,
    roles: str = "",
    capabilities: str = "",
    prefers: str = "",
    faults: str = "",
    **options: Any,
) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., Awaitable[None]]]:
    """Register ``async def run(kit)``, or ``run(kit, example)``, as what provokes a rule. Names are split at blanks."""

    def register(run: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        assert identity not in PROGRAMMES, identity
        PROGRAMMES[identity] = Programme(
            id=identity,
            run=run,
            roles=frozenset(roles.split()),
            capabilities=frozenset(capabilities.split()),
            prefers=frozenset(prefers.split()),
            faults=tuple(faults.split()),
            **options,
        )
        return run

    return register
