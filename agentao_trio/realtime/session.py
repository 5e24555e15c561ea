"""A conversation with a Realtime model over connections that come and go.

Theory of operation
-------------------
A session is the logical conversation; a connection carries it for an hour at most, and may be lost. One task runs the
connections, one after the other. Each begins with a *greeting*: the server's ``session.created``, our configuration,
the server's echo of it, which has to say the same, and, where this is not the first, the conversation so far,
function calls and their outputs included. From then on one task reads, one writes, and one waits for the hour to end.

The reader decodes, keeps the books (conversation, journal, what was asked and answered) and calls inline handlers. It
never waits for anybody: a reader that does lets pings go unanswered. The writer takes from the outbox and shields each
message, because half a message on the wire is the end of the connection.

A connection is renewed a while before the server would close it, between turns if there is such a moment: nobody speaks
and no response is active. Caller audio is kept meanwhile. When a connection is lost, the caller's audio of that time is
dropped; created and deleted items that the server had not confirmed are sent again, everything else that was asked for
in it fails. What the model was saying is cut off where it was.

What a session believes to be the time is its Unix time when it was opened plus trio's clock, so that it can be run
in virtual time, and a clock that is set does not disturb it.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import random
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

import attrs
import trio

from agentao_trio.broadcast import Subscription as Queue
from agentao_trio.errors import AuthenticationError, ConnectError, ConnectionLost, RealtimeError, SessionClosed
from agentao_trio.realtime import connection, protocol
from agentao_trio.realtime.connection import RECOVERABLE_CLOSE_CODES, Connect, MessageTransport
from agentao_trio.realtime.conversation import Conversation
from agentao_trio.realtime.outbox import Audio, Outbox
from agentao_trio.realtime.protocol import Item, Profile, ServerEvent, SessionConfig
from agentao_trio.realtime.router import Errors, Handler, Router, RouterStatistics, Selector, Subscription
from agentao_trio.services import leaving_bare, service_nursery

__all__ = ["RealtimeSession", "RealtimeState", "RealtimeStatistics", "open_realtime"]

log = logging.getLogger("agentao_trio.realtime")
AnyHandler = TypeVar("AnyHandler", bound=Handler)

#: Seconds that a greeting may take: the server's hello, our configuration and its echo.
GREETING_SECONDS = 15.0
#: Seconds that leaving a session may take for what is queued and for the closing handshake.
CLOSE_SECONDS = 2.0
#: Milliseconds of caller audio that may wait to be sent.
UPLINK_MS = 1000
#: Seconds before the end of a connection's time from which it is renewed between turns, and from which it is anyway.
RENEW_BEFORE = 120.0
RENEW_AT_LAST = 5.0
#: Attempts to connect in a row, and the longest pause between two, in seconds.
MOST_ATTEMPTS = 6
LONGEST_PAUSE = 8.0


class RealtimeState(StrEnum):
    """Where a session is."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


@attrs.frozen(kw_only=True)
class RealtimeStatistics:
    """What a session has done so far."""

    state: RealtimeState
    #: Connections that were greeted; one more than the renewals and losses that were survived.
    connections: int
    #: Connections replaced before their time was over, and connections lost.
    renewals: int
    losses: int
    #: Attempts to connect that failed.
    failed_attempts: int
    events_received: int
    #: Events of types that are not known, and messages that are no events.
    unknown: int
    malformed: int
    events_sent: int
    #: Milliseconds of caller audio sent, dropped for want of room or of a connection, and waiting.
    audio_sent_ms: int
    audio_dropped_ms: int
    audio_waiting_ms: int
    #: Errors the server told of, and those of them that were races nobody has to mind.
    errors: int
    harmless_errors: int
    #: Responses asked for again after a failure.
    retries: int
    #: Items that were put into a new connection, and items that cannot be (audio without a transcript).
    items_replayed: int
    items_left_behind: int
    router: RouterStatistics


class RealtimeSession:
    """A conversation with a model. Made by :func:`open_realtime`.

    Everything that asks the server for something raises :class:`RealtimeError` where the server refuses it,
    :class:`ConnectionLost` where the connection ends before the answer, and :class:`SessionClosed` once the session is
    over. They wait for the answer as long as it takes: put a deadline around them. Cancelled, they stop waiting; what
    was asked for may still happen.
    """

    #: The conversation so far.
    conversation: Conversation
    #: The configuration as the server last echoed it, on top of what was asked for.
    config: SessionConfig
    #: The server's name for the current connection's session, and the Unix time at which it will close it.
    session_id: str
    expires_at: float | None
    state: RealtimeState

    # -- sending ----------------------------------------------------------------------------------------------------

    def append_audio(self, data: bytes | bytearray | memoryview) -> None:
        """The caller's audio in the session's input format, in pieces of any size. Never waits.

        Where more than ``uplink_ms`` wait to be sent, the oldest is dropped and counted.
        """

    async def send(self, event: protocol.ClientEvent) -> str:
        """Queue a client event, and return its id. Waits while there is no room."""

    def send_nowait(self, event: protocol.ClientEvent) -> str:
        """Queue a client event, and return its id. For inline handlers, which cannot wait.

        Raises :class:`trio.WouldBlock` where there is no room. If the server refuses it, subscribers of ``"error"``
        are told.
        """

    async def request(self, event: protocol.ClientEvent) -> ServerEvent:
        """Send a client event, and return the server's answer to it.

        For the events that have one: everything but ``input_audio_buffer.append`` and ``output_audio_buffer.clear``.
        """

    async def update(self, config: SessionConfig) -> None:
        """Change the configuration; what ``config`` leaves UNSET stays as it is.

        Raises :class:`RealtimeError` (``echoed_otherwise``) where the server says that it took something else.
        """

    async def create_item(self, item: Item, *, previous_item_id: str | None = None) -> str:
        """Add an item to the conversation, at its end or behind another, and return its id."""

    async def delete_item(self, item_id: str) -> None:
        """Take an item out of the conversation."""

    async def truncate(self, item_id: str, audio_end_ms: int, *, content_index: int = 0) -> None:
        """Tell the model how much of its audio was heard, in milliseconds."""

    async def create_response(self, params: Mapping[str, Any] | None = None) -> str:
        """Ask for a response, and return its id when it has begun.

        One at a time: waits for the end of the active one, first. Refusals that may pass are retried within a budget.
        So are responses that fail for such a reason after they have begun, by the session itself.
        """

    async def cancel_response(self) -> None:
        """Stop the active response, and wait until it has ended. Harmless where there is none."""

    # -- hearing ----------------------------------------------------------------------------------------------------

    def on(
        self, selector: Selector, *, own_task: bool = False, errors: Errors = "propagate"
    ) -> Callable[[AnyHandler], AnyHandler]:
        """A decorator that subscribes a handler; see :meth:`subscribe`."""

    def subscribe(
        self, selector: Selector, handler: Handler, *, own_task: bool = False, errors: Errors = "propagate"
    ) -> Subscription:
        """Call ``handler(event)`` for each event that ``selector`` selects; see :mod:`agentao_trio.realtime.router`."""

    def events(self, selector: Selector = "*") -> Queue[Any]:
        """An async iterator over the events that ``selector`` selects, from now on, until the session ends."""

    def on_reconnecting(self, hook: Callable[[str], object]) -> None:
        """Call ``hook(reason)`` when a connection has ended and the next is not there yet. Has to be quick."""

    def on_renewed(self, hook: Callable[[str], object]) -> None:
        """Call ``hook(reason)`` when the session has a new connection, with the conversation replayed. To be quick."""

    def statistics(self) -> RealtimeStatistics:
        """A snapshot."""


@contextlib.asynccontextmanager
async def open_realtime(
    url: str,
    *,
    config: SessionConfig,
    api_key: str | None = None,
    profile: Profile = Profile.GA,
    headers: Mapping[str, str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    connect: Connect | None = None,
    uplink_ms: int = UPLINK_MS,
    append_ms: int = 20,
    renew_before: float = RENEW_BEFORE,
) -> AsyncIterator[RealtimeSession]:
    """Open a session with the model at ``url``; it is configured when the block begins, and closed when it ends."""
    yield  # type: ignore[misc]
