"""One publisher that must never wait, any number of readers that may: bounded channels with a policy and a counter.

A reader that falls behind either loses its oldest items (the policy for audio and dashboards, where the newest counts)
or ends with an error (the policy for events, where a gap would be a lie). Either way the publisher goes on, and what
was lost is counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial
from typing import Any, Final, Generic, TypeVar

import attrs
import outcome
import trio

__all__ = ["Broadcast", "Subscription"]

T = TypeVar("T")
Y = TypeVar("Y")


class _Given(outcome.Outcome["_Given"]):
    """What a waiting task is woken with when its item lies beside the queue.

    ``outcome.Value`` takes note of being used, so that it is not used twice, and there has to be one for each item. To
    make them and to take the notes costs a sixth of all it takes to wake a task.
    """

    def unwrap(self) -> _Given:
        return self

    def send(self, gen: Generator[Y, _Given, object]) -> Y:
        return gen.send(self)

    async def asend(self, agen: AsyncGenerator[Y, _Given]) -> Y:
        return await agen.asend(self)


_GIVEN: Final = _Given()
#: What it is woken with when there is nothing for it and never will be.
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
    # Who has waited longest, and who waits behind; nobody does while there are items.
    _waiting: trio.lowlevel.Task | None = attrs.field(default=None, init=False)
    _behind: tuple[trio.lowlevel.Task, ...] = attrs.field(default=(), init=False)
    # The item for the task that was woken with _GIVEN.
    _given: Any = attrs.field(default=_NOTHING, init=False)
    # There is something to take at once: an item, or the end. To look into an empty queue costs more.
    _ready: bool = attrs.field(default=False, init=False)
    _ended: bool = attrs.field(default=False, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _error: Exception | None = attrs.field(default=None, init=False)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "ended" if self._ended else "open"
        return f"<Subscription {state}, {len(self._items)} items waiting, {self.dropped} dropped>"

    def __aiter__(self) -> Subscription[T]:
        return self

    async def __anext__(self) -> T:
        if self._ready:
            await trio.lowlevel.checkpoint()
            if self._items:
                item = self._items.popleft()
                self._ready = self._ended or bool(self._items)
                return item
            if self._ended:
                raise self._how_it_ended()
        task = trio.lowlevel.current_task()
        withdraw: Callable[[object], trio.lowlevel.Abort]
        if self._waiting is None:
            self._waiting, withdraw = task, self._withdraw_first
        else:
            self._behind, withdraw = (*self._behind, task), partial(self._withdraw, task)
        item = await trio.lowlevel.wait_task_rescheduled(withdraw)
        if item is _GIVEN:
            item, self._given = self._given, _NOTHING
        if item is _NOTHING:
            raise self._how_it_ended()
        return item

    def _how_it_ended(self) -> Exception:
        error, self._error = self._error, None
        return StopAsyncIteration() if error is None else error

    def _advance(self) -> None:
        """Whoever waits behind the first is the first now."""
        self._waiting = None
        if self._behind:
            self._waiting, *others = self._behind
            self._behind = tuple(others)

    def _withdraw_first(self, _: object) -> trio.lowlevel.Abort:
        # Who came when nobody waited has nobody before it for as long as it waits.
        self._advance()
        return trio.lowlevel.Abort.SUCCEEDED

    def _withdraw(self, task: trio.lowlevel.Task, _: object) -> trio.lowlevel.Abort:
        if task is self._waiting:
            self._advance()
        else:
            self._behind = tuple(each for each in self._behind if each is not task)
        return trio.lowlevel.Abort.SUCCEEDED

    def close(self) -> None:
        """Stop listening; iterating ends. A task that was given an item keeps it. Harmless when repeated."""
        self._closed = self._ended = self._ready = True
        self._items.clear()
        self._error = None
        self._wake_all()

    def _offer(self, item: T) -> bool:
        """Give the reader an item; False when it will never take another."""
        if self._wanted is not None and not self._wanted(item):
            return True
        if self._closed:
            return False
        if (task := self._waiting) is not None:  # one item is for one of them
            self._waiting = None
            if self._behind:
                self._advance()
            if self._given is _NOTHING:
                self._given = item
                trio.lowlevel.reschedule(task, _GIVEN)
            else:  # somebody else was woken, and has not taken it yet
                trio.lowlevel.reschedule(task, outcome.Value(item))
            return True
        if len(self._items) >= self._bound:
            self.dropped += 1
            if self._overrun is not None:
                self._end(self._overrun())
                return False
            self._items.popleft()
        self._items.append(item)
        self._ready = True
        return True

    def _end(self, error: Exception | None = None) -> None:
        if not self._closed:
            self._error = error
            self._ended = self._ready = True
            self._wake_all()

    def _wake_all(self) -> None:
        while (task := self._waiting) is not None:
            self._advance()
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
