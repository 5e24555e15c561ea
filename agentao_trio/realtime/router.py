"""Who is told of which event: everything, a family of events, or one type, in this order.

A *selector* is ``"*"``, a type by either of its names (``"response.output_audio.delta"``, ``"response.audio.delta"``),
the beginning of types up to a dot (``"response"``, ``"conversation.item"``), or an event's class. Subscriptions are
called from the widest selector to the narrowest; equal ones in the order in which they were made. What has no type that
can be read reaches ``"*"`` and :class:`Malformed` only.

An *inline* subscription is a plain function, called by the task that reads the connection: it has to be quick. One with
a task of its own may be ``async`` and take its time: events wait for it in a bounded queue, and a queue that runs over
is an error of that subscription, because a gap would be a lie.

A failing handler fails the session (``errors="propagate"``), or is logged, counted, and after some failures no longer
called (``errors="isolate"``). Nothing here catches a cancellation.
"""

from __future__ import annotations

import functools
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import attrs
import trio

from agentao_trio.broadcast import Subscription as Queue
from agentao_trio.errors import EventsOverrun
from agentao_trio.handlers import contained, is_async
from agentao_trio.realtime.names import ga_name
from agentao_trio.realtime.server_events import Malformed, ServerEvent, Unknown

__all__ = ["Errors", "Handler", "Router", "RouterStatistics", "Selector", "Subscription"]

log: logging.Logger = logging.getLogger("agentao_trio.realtime")

Selector = str | type[ServerEvent]
Handler = Callable[[Any], None] | Callable[[Any], Awaitable[None]]
Errors = Literal["propagate", "isolate"]

#: Events that may wait for a handler in a task of its own, or for an iterator.
QUEUE_BOUND = 1024
#: Failures after which an isolated handler is no longer called.
MOST_FAILURES = 5
#: Parts of a type that are told apart; a server may send any name.
_DEEPEST = 6


@attrs.frozen(kw_only=True)
class RouterStatistics:
    """What a router has done so far."""

    #: Events given to whoever wanted them.
    routed: int
    #: Subscriptions there are.
    subscriptions: int
    #: Exceptions of isolated handlers.
    failures: int
    #: Isolated handlers that are no longer called.
    disabled: int
    #: Handlers and iterators that did not keep up.
    overruns: int


class Subscription:
    """A handler of some events. Made by :meth:`Router.subscribe`."""

    def __init__(self, router: Router, key: str, handler: Handler, errors: Errors, queue: Queue[Any] | None) -> None:
        #: Exceptions of this handler so far; only where they are isolated.
        self.failures: int = 0
        self._router = router
        self._key = key
        self._handler = handler
        self._errors = errors
        self._queue = queue
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<Subscription to {self._key or 'every event'}, {state}, {self.failures} failures>"

    @property
    def closed(self) -> bool:
        """Whether it has been closed, or disabled for its failures."""
        return self._closed

    def close(self) -> None:
        """No event from now on, nor those that are queued. A handler that is running finishes. Safe to repeat."""
        if not self._closed:
            self._closed = True
            self._router._forget(self._key, self)
            if self._queue is not None:
                self._queue.close()

    def _deliver(self, event: ServerEvent) -> None:
        if self._closed:
            return
        if self._queue is not None:
            self._router._offer(self._queue, event)
        elif self._errors == "isolate":
            with contained(self, Subscription._failed):
                self._handler(event)
        else:
            self._handler(event)

    async def _run(self) -> None:
        """Call the handler for each queued event, one after the other, until it is closed."""
        assert self._queue is not None
        while not self._closed:
            if self._errors == "propagate":
                await self._next(self._queue)
            else:
                with contained(self, Subscription._failed):
                    await self._next(self._queue)

    async def _next(self, queue: Queue[Any]) -> None:
        try:
            event = await anext(queue)
        except StopAsyncIteration:
            self.close()
            return
        result = self._handler(event)
        if result is not None:
            await result

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self._router._failures += 1
        log.error("a handler of %r failed (%d)", self._key or "*", self.failures, exc_info=error)
        if self.failures >= MOST_FAILURES or isinstance(error, EventsOverrun):
            log.error("that handler of %r is not called any more", self._key or "*")
            self._router._disabled += 1
            self.close()


class Router:
    """Gives events to subscriptions. Tasks of subscriptions run in ``nursery``."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._subscriptions: defaultdict[str, tuple[Subscription, ...]] = defaultdict(tuple)
        self._iterators: defaultdict[str, tuple[Queue[Any], ...]] = defaultdict(tuple)
        self._routed = self._failures = self._disabled = self._overruns = 0
        self._ended = False

    def __repr__(self) -> str:
        return f"<Router, {self._routed} events routed, {self._failures} failures{', ended' if self._ended else ''}>"

    def subscribe(
        self, selector: Selector, handler: Handler, *, own_task: bool = False, errors: Errors = "propagate"
    ) -> Subscription:
        """Call ``handler(event)`` for each event that ``selector`` selects, from the next one on.

        Raises TypeError for an ``async`` handler without ``own_task``, and ValueError for a selector that is empty.
        """
        key = _key(selector)
        if not own_task and is_async(handler):
            raise TypeError(f"{handler!r} is async: it needs own_task=True, as the reader does not wait for handlers")
        queue = self._queue() if own_task else None
        subscription = Subscription(self, key, handler, errors, queue)
        self._subscriptions[key] += (subscription,)
        if own_task:
            self._nursery.start_soon(subscription._run, name=f"realtime handler of {key or '*'}")
        return subscription

    def events(self, selector: Selector = "*") -> Queue[Any]:
        """An async iterator over the events that ``selector`` selects, from the next one on.

        Iterating ends with the router, and raises :class:`EventsOverrun` where ``QUEUE_BOUND`` events had to wait.
        """
        queue = self._queue()
        if self._ended:
            queue._end()
        else:
            self._iterators[_key(selector)] += (queue,)
        return queue

    def route(self, event: ServerEvent) -> None:
        """Call who is to be called inline, and queue for the others. Never waits.

        Raises what an inline handler raises, unless its errors are isolated.
        """
        self._routed += 1
        for key in _keys(_type(event), type(event).__name__ if not event.TYPE else ""):
            for subscription in self._subscriptions.get(key, ()):
                subscription._deliver(event)
            for queue in self._iterators.get(key, ()):
                if not self._offer(queue, event):
                    self._iterators[key] = tuple(other for other in self._iterators[key] if other is not queue)

    def end(self) -> None:
        """No event will come any more: iterators and tasks finish what they have. Harmless when repeated."""
        self._ended = True
        for queues in self._iterators.values():
            for queue in queues:
                queue._end()
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                if subscription._queue is not None:
                    subscription._queue._end()

    def statistics(self) -> RouterStatistics:
        """A snapshot."""
        return RouterStatistics(
            routed=self._routed,
            subscriptions=sum(map(len, self._subscriptions.values())),
            failures=self._failures,
            disabled=self._disabled,
            overruns=self._overruns,
        )

    def _queue(self) -> Queue[Any]:
        return Queue(QUEUE_BOUND, overrun=self._overrun)

    def _overrun(self) -> EventsOverrun:
        self._overruns += 1
        return EventsOverrun(f"{QUEUE_BOUND} Realtime events waited for a handler or iterator, and one more came")

    def _offer(self, queue: Queue[Any], event: ServerEvent) -> bool:
        return queue._offer(event)

    def _forget(self, key: str, subscription: Subscription) -> None:
        self._subscriptions[key] = tuple(other for other in self._subscriptions[key] if other is not subscription)


def _key(selector: Selector) -> str:
    """How a selector is filed: "" for everything, a (GA) name or its beginning, or the name of a class without one."""
    if isinstance(selector, str):
        if not selector:
            raise ValueError("an event is selected by '*', a type, the beginning of types, or a class; not by ''")
        return "" if selector == "*" else ga_name(selector.removesuffix(".*"))
    return selector.TYPE or ("" if selector is ServerEvent else f"<{selector.__name__}>")


def _type(event: ServerEvent) -> str:
    return ga_name(event.type) if isinstance(event, Unknown | Malformed) else event.TYPE


@functools.lru_cache(maxsize=512)
def _keys(wire_type: str, nameless: str) -> tuple[str, ...]:
    """What an event may be filed under, the widest first."""
    parts = wire_type.split(".")[: _DEEPEST + 1] if wire_type else []
    keys = ["", *(".".join(parts[: count + 1]) for count in range(len(parts)))]
    if nameless:
        keys.append(f"<{nameless}>")
    return tuple(keys)
