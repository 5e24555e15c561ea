"""Functions that are called when something happens to a call, and the tasks they run in.

Theory of operation
-------------------
Whatever happens is *signalled* without waiting, into a bounded queue per call, for the handlers that are registered by
then. One task per call takes the signals in order: a plain function is called there and then, an ``async`` one gets a
task of its own in the call's handler nursery, so that a handler may run as long as the call does. What kind a handler
is, and whether it wants the event's value, is found out when it is registered, not from what it returns.

That a call was answered, or is over, is signalled to a handler that comes later as well, when it is registered: the
gateway's events may be here before a program has had any chance to register one.

A handler's failure belongs to its call: it is logged with its traceback and that call is hung up. Where the session was
opened with ``handler_errors="raise"`` it propagates and ends the session instead. This is the one place in the package
where any exception is caught.
"""

from __future__ import annotations

import contextlib
import inspect
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import attrs
import trio

from agentao_trio.events import CallEvent, ClientEvent

__all__ = ["SIGNAL_BOUND", "CallHandlers", "Handler", "Registered", "contained", "is_async"]

Handler = TypeVar("Handler", bound=Callable[..., Any])
What = TypeVar("What")
#: Told which event's handler raised what.
Failed = Callable[[CallEvent | ClientEvent, Exception], None]

#: Signals of one call that may wait for its handlers; one more ends the call with CallOverrun.
SIGNAL_BOUND = 256
#: What happens to a call once, and is signalled to handlers that are registered afterwards too.
_LASTING = frozenset({CallEvent.CALL_ANSWERED, CallEvent.CALL_TERMINATED})
#: Seconds between two CALL_QUALITY events of a call.
QUALITY_INTERVAL = 5.0


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives something to be awaited: it is an ``async`` function, or an object called like one."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object whose method it is
    )


def _accepts_value(handler: Callable[..., Any], what: str) -> bool:
    """Whether ``handler`` takes one positional argument rather than none. Raises TypeError when it takes neither."""
    signature = inspect.signature(handler)
    for arguments in ((None,), ()):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return bool(arguments)
    raise TypeError(f"a handler of {what} takes no argument or one; {handler!r} takes {signature}")


@contextlib.contextmanager
def contained(event: What, fail: Callable[[What, Exception], None]) -> Iterator[None]:
    """Hand the failure of a handler of ``event``, or what else tells it apart, to ``fail`` and do not let it out."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the one named place: a handler's failure belongs to its call
        fail(event, error)
    except BaseExceptionGroup as group:  # failures in a nursery that was being cancelled; the cancellation goes its way
        failures, others = group.split(Exception)
        if failures is not None:
            fail(event, failures)
        assert others is not None  # or it had been an ExceptionGroup
        raise others from None


@attrs.frozen
class Registered:
    """A handler, and what was found out about it when it was registered."""

    function: Callable[..., Any]
    is_async: bool
    takes_value: bool

    @classmethod
    def of(cls, function: Callable[..., Any], what: str) -> Registered:
        """``function`` as a handler of ``what``. Raises TypeError for one that needs more than one argument."""
        return cls(function, is_async(function), _accepts_value(function, what))

    def run(self, nursery: trio.Nursery, event: What, value: Any, fail: Callable[[What, Exception], None]) -> None:
        """Call it now, or in a task of its own in ``nursery``; its failure is handed to ``fail``."""
        arguments = (value,) if self.takes_value else ()
        if self.is_async:
            name = getattr(self.function, "__qualname__", None) or repr(self.function)
            nursery.start_soon(self._await, event, arguments, fail, name=name)
        else:
            with contained(event, fail):
                self.function(*arguments)

    async def _await(self, event: What, arguments: tuple[Any, ...], fail: Callable[[What, Exception], None]) -> None:
        with contained(event, fail):
            await self.function(*arguments)


class CallHandlers:
    """The handlers of one call.

    ``start`` runs a task of the session's, ``quality`` gives the value of CALL_QUALITY, ``fail`` is told of a handler
    that raised, and ``overrun`` that the signals are not being taken.
    """

    def __init__(
        self,
        *,
        start: Callable[[Callable[[], Awaitable[None]]], None],
        quality: Callable[[], Any],
        fail: Failed,
        overrun: Callable[[], object],
    ) -> None:
        self._start = start
        self._quality = quality
        self._fail = fail
        self._overrun = overrun
        self._handlers: defaultdict[CallEvent, list[Registered]] = defaultdict(list)
        self._signals: deque[tuple[CallEvent, Any, tuple[Registered, ...]]] = deque()
        self._happened: dict[CallEvent, Any] = {}
        self._signalled = trio.lowlevel.ParkingLot()
        self._running = False
        self._over = False

    def __repr__(self) -> str:
        state = "over" if self._over else "running" if self._running else "not running"
        return f"<CallHandlers for {len(self._handlers)} events, {state}, {len(self._signals)} signals waiting>"

    def on(self, event: CallEvent | str) -> Callable[[Handler], Handler]:
        """A decorator that registers a handler; see :meth:`ActiveCall.on`."""
        try:
            known = CallEvent(event)
        except ValueError:
            names = ", ".join(each.value for each in CallEvent)
            raise ValueError(f"{event!r} is not an event of a call; expected one of {names}") from None

        def register(handler: Handler) -> Handler:
            registered = Registered.of(handler, known.value)
            self._handlers[known].append(registered)
            if not self._running:
                self._running = True
                self._start(self._run)
            if known is CallEvent.CALL_QUALITY and len(self._handlers[known]) == 1:
                self._start(self._watch_quality)
            if known in self._happened:
                self._queue(known, self._happened[known], (registered,))
            return handler

        return register

    def signal(self, event: CallEvent, value: Any = None) -> None:
        """Something happened. Never waits."""
        if event is CallEvent.CALL_TERMINATED:
            self._over = True
        if event in _LASTING:
            self._happened[event] = value
        self._queue(event, value, tuple(self._handlers.get(event, ())))

    def _queue(self, event: CallEvent, value: Any, handlers: tuple[Registered, ...]) -> None:
        if handlers:
            if len(self._signals) >= SIGNAL_BOUND and not self._over:
                self._overrun()
                return
            self._signals.append((event, value, handlers))
        self._signalled.unpark_all()

    async def _run(self) -> None:
        """Call the handlers, in order of the signals, until the call is over and its handlers are done."""
        async with trio.open_nursery() as nursery:
            while True:
                while self._signals:
                    event, value, handlers = self._signals.popleft()
                    for handler in handlers:
                        handler.run(nursery, event, value, self._fail)
                if self._over:
                    self._running = False  # who is registered from now on is called by a task of its own
                    return
                await self._signalled.park()

    async def _watch_quality(self) -> None:
        next_at = trio.current_time()
        while not self._over:
            next_at += QUALITY_INTERVAL
            with trio.move_on_at(next_at):
                while not self._over:
                    await self._signalled.park()
            if not self._over:
                self.signal(CallEvent.CALL_QUALITY, self._quality())
