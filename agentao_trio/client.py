"""The agent's side in the style of decorators: :class:`AgenTaoClient`, and :func:`serve` for programs with nurseries.

Both take the calls that come in on a session and give each a task of its own. :func:`serve` follows trio's ``serve_*``
convention: ``await nursery.start(serve, handler, endpoint)`` runs ``handler(call)`` once per call, and the call is hung
up when the handler returns. With the client a call stays until one side ends it, as its handlers may go on long after
the one for INCOMING_CALL has returned.

The tasks of the calls live with the session, so that a cancelled program can still let its calls finish.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Literal

import trio

from agentao_trio.call import ActiveCall
from agentao_trio.config import ClientConfig
from agentao_trio.errors import CallError, ConnectionLost, SessionClosed
from agentao_trio.events import ClientEvent
from agentao_trio.handlers import Handler, Registered, contained
from agentao_trio.session import Session, open_session

__all__ = ["AgenTaoClient", "serve"]

log: logging.Logger = logging.getLogger("agentao_trio.client")

CallHandler = Callable[[ActiveCall], Awaitable[Any]]
#: Asked whether a call that comes in is ours to take, with the call and whether there is room for another: it may wait.
#: The claim holds for as long as its block runs. One is :meth:`agentao_trio.fleet.Fleet.claim`.
Claim = Callable[[ActiveCall, Callable[[], bool]], AbstractAsyncContextManager[bool]]


async def serve(
    handler: CallHandler,
    endpoint: str | ClientConfig,
    *,
    max_calls: int | None = None,
    drain: float = 0.0,
    claim: Claim | None = None,
    task_status: trio.TaskStatus[Session] = trio.TASK_STATUS_IGNORED,
    **options: Any,
) -> None:
    """Open a session with ``endpoint`` and run ``handler(call)`` in a task of its own for each call that comes in.

    ``endpoint`` is ``quic://HOST:PORT`` or a :class:`ClientConfig`, whose options give way to those given besides. A
    call is hung up when its handler returns. A handler that raises is logged, and only its call ends; with
    ``handler_errors="raise"`` it ends this function. At most ``max_calls`` calls run at a time, further ones are
    refused. With a ``claim``, such as that of a :class:`~agentao_trio.fleet.Fleet`, workers share the calls: one that
    is not ours, or beyond ``max_calls``, or whose claim raises, is left to others. ``options`` are those of
    :func:`open_session`, whose errors are raised. ``task_status`` hands out the session once it is up. Runs until
    cancelled; the calls in progress then have ``drain`` seconds to finish before they are hung up.
    """

    async def hold(session: Session, call: ActiveCall) -> None:
        async with call:
            with contained(ClientEvent.INCOMING_CALL, functools.partial(session.handler_failed, call)):
                await handler(call)

    address, options = _resolved(endpoint, options)
    async with open_session(address, **options) as session:
        task_status.started(session)
        intake = _Intake(session, functools.partial(hold, session), max_calls=max_calls, drain=drain, claim=claim)
        try:
            await intake.take()
        finally:
            await intake.finish()


def _resolved(endpoint: str | ClientConfig, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The address, and the options: those given go before those of a configuration."""
    if isinstance(endpoint, ClientConfig):
        return endpoint.endpoint, {**endpoint.options(), **options}
    return endpoint, options


class _Intake:
    """Runs ``hold(call)`` for each incoming call, while :meth:`take` runs; :meth:`finish` drains.

    The latter belongs into the task that leaves: it is shielded, and only there can Ctrl-C cut it short.
    """

    def __init__(
        self, session: Session, hold: CallHandler, *, max_calls: int | None, drain: float, claim: Claim | None
    ) -> None:
        self._session = session
        self._hold = hold
        self._max_calls = max_calls
        self._drain = drain
        self._claim = claim
        self._held: set[str] = set()
        self._released = trio.lowlevel.ParkingLot()

    async def take(self) -> None:
        """Until cancelled, or the session is over."""
        async for call in self._session.incoming():
            if self._claim is not None:
                self._session.start(functools.partial(self._run_if_ours, self._claim, call))
            elif not self._has_room():
                log.warning("call %s is refused: %d calls are in progress already", call.call_sid, len(self._held))
                self._session.start(functools.partial(_refuse, call))
            else:
                self._held.add(call.call_sid)
                self._session.start(functools.partial(self._run, call))

    async def finish(self) -> None:
        """Drain, whatever is being cancelled."""
        deadline = trio.current_time() + self._drain
        if self._claim is not None:  # what we have not taken, another may be talking to
            for call in list(self._session.calls.values()):
                if call.direction == "inbound" and call.call_sid not in self._held:
                    call.release()
        with trio.CancelScope(shield=True):
            await self._session.drain(self._drain)
        with trio.CancelScope(shield=True, deadline=deadline):
            while self._held:  # what handlers do after their call belongs to it
                await self._released.park()

    def _has_room(self) -> bool:
        return self._max_calls is None or len(self._held) < self._max_calls

    async def _run(self, call: ActiveCall) -> None:
        try:
            await self._hold(call)
        finally:
            self._held.discard(call.call_sid)
            self._released.unpark_all()

    async def _run_if_ours(self, claim: Claim, call: ActiveCall) -> None:
        ours = False
        with contained(ClientEvent.INCOMING_CALL, functools.partial(self._session.handler_failed, call)):
            try:
                async with claim(call, self._has_room) as ours:
                    if ours:
                        self._held.add(call.call_sid)
                        await self._run(call)
            finally:
                if not ours:
                    call.release()  # another may have taken it: a claim that fails must not have it hung up


async def _refuse(call: ActiveCall) -> None:
    async with call:
        pass  # hangs up, again where it has to be


class AgenTaoClient:
    """Takes calls, and calls the functions registered for them.

    ``endpoint`` is ``quic://HOST:PORT`` or a :class:`ClientConfig`, whose options give way to those given besides;
    ``trunks`` are asked for incoming calls. At most ``max_calls`` are in progress at a time, further ones are refused;
    with a ``claim`` workers share the calls, and further ones are left to others, see :func:`serve`. When the client is
    left, calls in progress have ``drain`` seconds to finish. ``handler_errors`` and ``options`` are those of
    :func:`open_session`.

    Use it as an async context manager, or through :meth:`run_forever`, or :meth:`connect` and :meth:`disconnect`.
    """

    def __init__(
        self,
        endpoint: str | ClientConfig,
        *,
        trunks: Collection[str] = (),
        max_calls: int | None = None,
        drain: float = 10.0,
        claim: Claim | None = None,
        handler_errors: Literal["log", "raise"] = "log",
        **options: Any,
    ) -> None:
        self._endpoint, options = _resolved(endpoint, options)
        self._max_calls = max_calls
        self._drain = drain
        self._claim = claim
        self._options = {"trunks": trunks, "handler_errors": handler_errors, **options}
        self._handlers: list[Registered] = []
        self._session: Session | None = None
        self._opened = contextlib.AsyncExitStack()

    def __repr__(self) -> str:
        return f"<AgenTaoClient of {self._endpoint}: {self._session or 'not connected'}>"

    def on(self, event: ClientEvent | str) -> Callable[[Handler], Handler]:
        """A decorator that registers a function, plain or ``async``, for INCOMING_CALL.

        It is called with the :class:`ActiveCall`, an ``async`` one in a task of its own. Raises :class:`ValueError` for
        an event that is none of a client's, :class:`TypeError` for a function that needs more arguments.
        """
        if event not in tuple(ClientEvent):
            raise ValueError(f"{event!r} is not an event of a client; expected {ClientEvent.INCOMING_CALL.value}")

        def register(handler: Handler) -> Handler:
            self._handlers.append(Registered.of(handler, ClientEvent.INCOMING_CALL.value))
            return handler

        return register

    @property
    def session(self) -> Session:
        """The session in use. Raises :class:`SessionClosed` while the client is not connected."""
        if self._session is None:
            raise SessionClosed("this client is not connected; use 'async with client' or 'await client.connect()'")
        return self._session

    def get_call(self, call_sid: str) -> ActiveCall | None:
        """The call in progress of that name, or None."""
        return self.session.calls.get(call_sid)

    async def run_forever(self, *, task_status: trio.TaskStatus[Session] = trio.TASK_STATUS_IGNORED) -> None:
        """Connect and take calls until cancelled, or until Ctrl-C or SIGTERM; then drain. Raises :class:`ConnectError`.

        A second signal does what signals usually do: Ctrl-C raises :class:`KeyboardInterrupt`, SIGTERM ends the process
        at once. They are received in the main thread only, which is where ``trio.run`` usually is.
        """
        async with self:
            task_status.started(self.session)
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                number = await anext(signals)
            log.info(
                "%s: no further calls; those in progress have %g s to finish", signal.Signals(number).name, self._drain
            )

    async def connect(self) -> None:
        """Connect and begin to take calls. To be followed by :meth:`disconnect`, in the same task.

        Raises :class:`ConnectError`. Cancelled, nothing is left open.
        """
        await self.__aenter__()

    async def disconnect(self) -> None:
        """Take no further calls, let those in progress finish within ``drain`` seconds, and close.

        Harmless when repeated. Cancelled, the calls still have their seconds.
        """
        await self.__aexit__(None, None, None)

    async def __aenter__(self) -> AgenTaoClient:
        if self._session is not None:
            raise RuntimeError("this client is connected already")
        async with contextlib.AsyncExitStack() as stack:
            session = await stack.enter_async_context(open_session(self._endpoint, **self._options))
            intake = _Intake(
                session,
                functools.partial(self._hold, session),
                max_calls=self._max_calls,
                drain=self._drain,
                claim=self._claim,
            )
            stack.push_async_callback(intake.finish)
            nursery = await stack.enter_async_context(trio.open_nursery())
            stack.callback(nursery.cancel_scope.cancel)
            nursery.start_soon(intake.take)
            self._opened = stack.pop_all()
            self._session = session
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            return await self._opened.__aexit__(exc_type, exc, traceback)
        finally:
            self._session = None

    async def _hold(self, session: Session, call: ActiveCall) -> None:
        fail = functools.partial(session.handler_failed, call)
        async with call, trio.open_nursery() as nursery:
            for handler in self._handlers:
                handler.run(nursery, ClientEvent.INCOMING_CALL, call, fail)
            with contextlib.suppress(CallError, ConnectionLost):
                await call.wait_ended()
