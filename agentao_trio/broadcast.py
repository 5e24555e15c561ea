"""One publisher that must never wait, any number of readers that may: bounded channels with a policy and a counter.

A reader that falls behind either loses its oldest items (the policy for audio and dashboards, where the newest counts)
or ends with an error (the policy for events, where a gap would be a lie). Either way the publisher goes on, and what
was lost is counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Generic, TypeVar, cast

import attrs
import outcome
import trio

__all__ = ["Broadcast", "Subscription"]

T = TypeVar("T")

#: What a waiting task is woken with when there is nothing for it and never will be.
_NOTHING: Final = object()


@attrs.define(eq=False)
class Subscription(Generic[T]):
    """An async iterator over what is published from now on.

    Cancelling a waiting ``__anext__`` loses nothing. ``dropped`` counts the items this reader was too slow for.
    """

    _bound: int
    _overrun: Callable[[], Exception] | None = attrs.field(default=None, kw_only=True)
    _wanted: Callable[[T], bool] | None = attrs.field(default=None, kw_only=True)
    dropped: int = attrs.field(default=0, init=False)
    _items: deque[T] = attrs.field(factory=deque, init=False)
    # A memory channel would do; this costs less than two thirds of one where an item is taken at once, as audio is.
    # Tasks that wait, the one who has waited longest first; there are none while there are items.
    _waiting: tuple[trio.lowlevel.Task, ...] = attrs.field(default=(), init=False)
    _ended: bool = attrs.field(default=False, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _error: Exception | None = attrs.field(default=None, init=False)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "ended" if self._ended else "open"
        return f"<Subscription {state}, {len(self._items)} items waiting, {self.dropped} dropped>"

    def __aiter__(self) -> Subscription[T]:
        return self

    async def __anext__(self) -> T:
        if self._items or self._ended or self._closed:
            await trio.lowlevel.checkpoint()
        if not (self._items or self._ended or self._closed):
            task, withdraw = trio.lowlevel.current_task(), self._withdraw_first
            if self._waiting:
                withdraw = partial(self._withdraw, task)
            self._waiting += (task,)
            item = await trio.lowlevel.wait_task_rescheduled(withdraw)
            if item is not _NOTHING:
                return cast(T, item)
        if self._items:
            return self._items.popleft()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopAsyncIteration

    def _withdraw_first(self, _: object) -> trio.lowlevel.Abort:
        # Who came when nobody waited has nobody before it for as long as it waits.
        self._waiting = self._waiting[1:]
        return trio.lowlevel.Abort.SUCCEEDED

    def _withdraw(self, task: trio.lowlevel.Task, _: object) -> trio.lowlevel.Abort:
        self._waiting = tuple(each for each in self._waiting if each is not task)
        return trio.lowlevel.Abort.SUCCEEDED

    def close(self) -> None:
        """Stop listening; iterating ends. A task that was given an item keeps it. Harmless when repeated."""
        self._closed = True
        self._items.clear()
        self._error = None
        self._wake_all()

    def _offer(self, item: T) -> bool:
        """Give the reader an item; False when it will never take another."""
        if self._wanted is not None and not self._wanted(item):
            return True
        if self._closed:
            return False
        if self._waiting:  # one item is for one of them
            trio.lowlevel.reschedule(self._waiting[0], outcome.Value(item))
            self._waiting = self._waiting[1:]
            return True
        if len(self._items) >= self._bound:
            self.dropped += 1
            if self._overrun is not None:
                self._end(self._overrun())
                return False
            self._items.popleft()
        self._items.append(item)
        return True

    def _end(self, error: Exception | None = None) -> None:
        if not self._closed:
            self._error = error
            self._ended = True
            self._wake_all()

    def _wake_all(self) -> None:
        waiting, self._waiting = self._waiting, ()
        for task in waiting:
            trio.lowlevel.reschedule(task, outcome.Value(_NOTHING))


class Broadcast(Generic[T]):
    """Publishes to every :class:`Subscription`; the first also gets the last ``early`` items published before it."""

    __slots__ = ("_dropped_elsewhere", "_early", "_ended", "_readers")

    def __init__(self, *, early: int = 0) -> None:
        self._readers: tuple[Subscription[T], ...] = ()
        self._early: deque[T] | None = deque(maxlen=early) if early else None
        self._dropped_elsewhere = 0
        self._ended = False

    def __repr__(self) -> str:
        return f"<Broadcast {'ended' if self._ended else 'open'}, {len(self._readers)} readers, {self.dropped} dropped>"

    @property
    def dropped(self) -> int:
        """Items some reader was too slow for, or that came before there was one, over all readers so far."""
        return self._dropped_elsewhere + sum(reader.dropped for reader in self._readers)

    def subscribe(
        self,
        bound: int,
        *,
        overrun: Callable[[], Exception] | None = None,
        wanted: Callable[[T], bool] | None = None,
    ) -> Subscription[T]:
        """A new reader with room for ``bound`` items.

        When it is full its oldest item is dropped, or, where ``overrun`` is given, it ends with the error that
        ``overrun`` makes. ``wanted`` filters.
        """
        reader = Subscription(bound, overrun=overrun, wanted=wanted)
        for item in self._early or ():
            reader._offer(item)
        self._early = None
        if self._ended:
            reader._end()
        else:
            self._readers += (reader,)
        return reader

    def publish(self, item: T) -> None:
        """Give ``item`` to every reader. Never waits."""
        if self._early is not None:
            self._dropped_elsewhere += len(self._early) == self._early.maxlen
            self._early.append(item)
            return
        for reader in self._readers:
            if not reader._offer(item):
                self._forget(reader)

    def _forget(self, reader: Subscription[T]) -> None:
        self._readers = tuple(each for each in self._readers if each is not reader)
        self._dropped_elsewhere += reader.dropped

    def end(self, error: Exception | None = None) -> None:
        """Nothing more will come: readers finish what they have, then end, with ``error`` if there is one."""
        if not self._ended:
            self._ended = True
            for reader in self._readers:
                reader._end(error)
