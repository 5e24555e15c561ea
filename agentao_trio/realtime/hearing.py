"""What can be heard of a session with a model: its events, and what becomes of its connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from agentao_trio.broadcast import Subscription as Queue
from agentao_trio.realtime.router import Errors, Handler, Router, Selector, Subscription
from agentao_trio.realtime.sequence import Violation

__all__ = ["Hearing"]

AnyHandler = TypeVar("AnyHandler", bound=Handler)


class Hearing:
    """The part of a :class:`~agentao_trio.realtime.session.RealtimeSession` that others listen to."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._on_reconnecting: list[Callable[[str], object]] = []
        self._on_renewed: list[Callable[[str], object]] = []
        self._on_violation: list[Callable[[Violation], object]] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def on(
        self, selector: Selector, *, own_task: bool = False, errors: Errors = "propagate"
    ) -> Callable[[AnyHandler], AnyHandler]:
        """A decorator that subscribes a handler; see :meth:`subscribe`."""

        def register(handler: AnyHandler) -> AnyHandler:
            self.subscribe(selector, handler, own_task=own_task, errors=errors)
            return handler

        return register

    def subscribe(
        self, selector: Selector, handler: Handler, *, own_task: bool = False, errors: Errors = "propagate"
    ) -> Subscription:
        """Call ``handler(event)`` for each event that ``selector`` selects; see :mod:`agentao_trio.realtime.router`.

        Raises TypeError for an ``async`` handler without ``own_task``.
        """
        return self._router.subscribe(selector, handler, own_task=own_task, errors=errors)

    def events(self, selector: Selector = "*") -> Queue[Any]:
        """An async iterator over the events that ``selector`` selects, from now on, until the session ends."""
        return self._router.events(selector)

    def on_reconnecting(self, hook: Callable[[str], object]) -> None:
        """Call ``hook(reason)`` when a connection has ended and the next is not there yet. Has to be quick."""
        self._on_reconnecting.append(hook)

    def on_renewed(self, hook: Callable[[str], object]) -> None:
        """Call ``hook(reason)`` when there is a new connection with the conversation replayed. Has to be quick."""
        self._on_renewed.append(hook)

    def on_violation(self, hook: Callable[[Violation], object]) -> None:
        """Call ``hook(violation)`` for an event that cannot come where it came. It is used all the same.

        A repeated event is not: it is a violation, and nobody else hears of it. Has to be quick.
        """
        self._on_violation.append(hook)

    def _tell_reconnecting(self, reason: str) -> None:
        for hook in self._on_reconnecting:
            hook(reason)

    def _tell_renewed(self, reason: str) -> None:
        for hook in self._on_renewed:
            hook(reason)

    def _tell_violation(self, violation: Violation) -> None:
        for hook in self._on_violation:
            hook(violation)
