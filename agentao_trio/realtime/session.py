"""A conversation with a Realtime model over connections that come and go.

Theory of operation
-------------------
A session is the logical conversation; a connection carries it for an hour at most, and may be lost. One task runs the
connections, one after the other. Each begins with a *greeting*: the server's ``session.created``, our configuration,
the server's echo of it, which has to say the same, and, where this is not the first, the conversation so far,
function calls and their outputs included. From then on one task reads, one writes, and one waits for the hour to end.

The reader decodes, keeps the books (the conversation, what was asked and answered) and calls inline handlers. It never
waits for anybody: a reader that does lets pings go unanswered. The writer takes from the outbox and shields each
message, because half a message on the wire is the end of the connection.

A connection is renewed a while before the server would close it, between turns if there is such a moment: nobody speaks
and no response is active. Caller audio is kept meanwhile. When a connection is lost, the caller's audio of that time is
dropped; items whose creation or deletion the server had not confirmed are sent again, everything else that was asked
for fails. What the model was saying is cut off where it was.

What a session believes to be the time is its Unix time when it was opened plus trio's clock, so that it can be run
in virtual time, and a clock that is set does not disturb it.
"""

from __future__ import annotations

import contextlib
import logging
import random
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar

import attrs
import trio

from agentao_trio.errors import ConnectError, ConnectionLost, RealtimeError, SessionClosed
from agentao_trio.realtime.asking import Asking
from agentao_trio.realtime.connection import (
    RECOVERABLE_CLOSE_CODES,
    Connect,
    MessageTransport,
    address,
    is_secret,
    lost,
    websocket,
)
from agentao_trio.realtime.conversation import Conversation
from agentao_trio.realtime.echo import taken
from agentao_trio.realtime.failures import refusal
from agentao_trio.realtime.hearing import Hearing
from agentao_trio.realtime.journal import MOST_BYTES, Journal, Words
from agentao_trio.realtime.outbox import APPEND_MS, Audio, Outbox
from agentao_trio.realtime.protocol import (
    UNSET,
    AudioFormat,
    ClientEvent,
    ConversationItemAdded,
    ConversationItemCreate,
    ConversationItemDelete,
    ConversationItemTruncate,
    ErrorEvent,
    InputAudioBufferSpeechStarted,
    InputAudioBufferSpeechStopped,
    Item,
    Malformed,
    Profile,
    Received,
    ResponseCancel,
    ResponseConfig,
    ResponseDone,
    ResponseOutputAudioDelta,
    ServerEvent,
    SessionConfig,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
    Unknown,
    decode_server_event,
    encode_client_event,
)
from agentao_trio.realtime.repeats import Repeats
from agentao_trio.realtime.replay import Replay, Unconfirmed
from agentao_trio.realtime.router import Router
from agentao_trio.realtime.sequence import SequenceCheck
from agentao_trio.realtime.session_statistics import RealtimeState, RealtimeStatistics
from agentao_trio.realtime.writing import APPEND, WRITE_SECONDS, Pen, append_message
from agentao_trio.services import leaving_bare, service_nursery, task_nursery

__all__ = ["RealtimeSession", "RealtimeState", "RealtimeStatistics", "open_realtime"]

log: logging.Logger = logging.getLogger("agentao_trio.realtime")
AnyEvent = TypeVar("AnyEvent", bound=ServerEvent)

#: Seconds that a greeting may take: the server's hello, our configuration and its echo, the replay.
GREETING_SECONDS = 15.0
#: Seconds that leaving a session may take, for what is queued and for the closing handshake.
CLOSE_SECONDS = 2.0
#: Milliseconds of caller audio that may wait to be sent.
UPLINK_MS = 1000
#: Seconds before the end of a connection's time from which it is renewed between turns, and from which it is anyway.
RENEW_BEFORE = 120.0
RENEW_AT_LAST = 5.0
#: Attempts to connect in a row, the pause that the first ones are apart at most, and the longest one, in seconds.
MOST_ATTEMPTS = 6
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 8.0


class RealtimeSession(Hearing):
    """A conversation with a model. Made by :func:`open_realtime`.

    Everything that asks the server for something raises :class:`RealtimeError` where the server refuses it,
    :class:`ConnectionLost` where the connection ends before the answer, and :class:`SessionClosed` once the session is
    over. They wait for the answer as long as it takes: put a deadline around them. Cancelled, they stop waiting; what
    was asked for may still happen.
    """

    def __init__(
        self,
        services: trio.Nursery,
        connect: Connect,
        *,
        where: str,
        config: SessionConfig,
        profile: Profile,
        uplink_ms: int,
        append_ms: int,
        renew_before: float,
        jitter: Callable[[], float],
        journal: Journal,
    ) -> None:
        super().__init__(Router(services))
        #: The conversation so far, over all connections.
        self.conversation: Conversation = Conversation()
        #: What went over all connections, without audio: the newest of it, and figures.
        self.journal: Journal = journal
        #: The configuration as the server last echoed it, on top of what was asked for.
        self.config: SessionConfig = config
        #: The server's name for the session of the current connection.
        self.session_id: str = ""
        #: The Unix time at which the server will close the current connection, if it told.
        self.expires_at: float | None = None
        self.state: RealtimeState = RealtimeState.CONNECTING
        self._connect = connect
        self._where = where
        self._wanted = config
        self._profile = profile
        self._renew_before = renew_before
        self._jitter = jitter
        self._counts: Counter[str] = Counter()
        self._outbox: Outbox[ClientEvent] = Outbox(
            bytes_per_ms=self._bytes_per_ms(), bound_ms=uplink_ms, append_ms=append_ms
        )
        self._asking = Asking(services, self.send, self._counts, jitter=jitter)
        self._unconfirmed = Unconfirmed()
        self._replay = Replay(self._counts)
        self._sequence, self._repeats = SequenceCheck(), Repeats()  # of the current connection
        self._caller_speaks = False
        self._serial = 0
        self._changed = trio.lowlevel.ParkingLot()
        self._writing = ("", b"")  # the message that is being written, as the journal keeps it
        self._clock_offset = time.time() - trio.current_time()
        self._opened = trio.Event()
        self._leaving = trio.Event()
        self._finished = trio.Event()

    def __repr__(self) -> str:
        return f"<RealtimeSession {self.session_id or '(new)'} at {self._where}, {self.state.value}>"

    # -- sending ----------------------------------------------------------------------------------------------------

    def append_audio(self, data: bytes | bytearray | memoryview) -> None:
        """The caller's audio in the session's input format, in pieces of any size. Never waits.

        Where more than ``uplink_ms`` wait to be sent, the oldest is dropped and counted.
        """
        if self.state is not RealtimeState.CLOSED:
            self._outbox.add_audio(data)

    async def send(self, event: ClientEvent) -> str:
        """Queue a client event, and return its id. Waits while there is no room. Cancelled, it has not been queued."""
        self._check_open()
        await self._outbox.wait_for_room()
        return self.send_nowait(event)

    def send_nowait(self, event: ClientEvent) -> str:
        """Queue a client event, and return its id. For inline handlers, which cannot wait.

        Raises :class:`trio.WouldBlock` where there is no room. If the server refuses it, subscribers of ``"error"``
        are told.
        """
        self._check_open()
        event = self._named(event)
        event_id = str(event.event_id)
        self._outbox.add(event)
        self._unconfirmed.sent(event_id, event)
        return event_id

    async def request(self, event: ClientEvent) -> ServerEvent:
        """Send a client event, and return the server's answer to it. Raises ValueError for events that have none."""
        self._check_open()
        # By an id of ours in any case: answers are told apart by it.
        return await self._asking.request(self._named(attrs.evolve(event, event_id=UNSET)))

    async def update(self, config: SessionConfig) -> None:
        """Change the configuration; what ``config`` leaves UNSET stays as it is.

        Raises :class:`RealtimeError` (``echoed_otherwise``) where the server says that it took something else.
        """
        wanted = self._wanted.merged(config)
        # The audio formats are repeated in every update: there are servers that reset what is left out.
        asked = attrs.evolve(config, input_format=wanted.input_format, output_format=wanted.output_format)
        answer = await self.request(SessionUpdate(session=asked))
        assert isinstance(answer, SessionUpdated)
        self._configured(wanted, answer)
        self._wanted = wanted

    async def create_item(self, item: Item, *, previous_item_id: str | None = None) -> str:
        """Add an item to the conversation, at its end or behind another, and return its id."""
        behind = UNSET if previous_item_id is None else previous_item_id
        answer = await self.request(ConversationItemCreate(item=item, previous_item_id=behind))
        assert isinstance(answer, ConversationItemAdded)
        return answer.item.id or ""

    async def delete_item(self, item_id: str) -> None:
        """Take an item out of the conversation."""
        await self.request(ConversationItemDelete(item_id=item_id))

    async def truncate(self, item_id: str, audio_end_ms: int, *, content_index: int = 0) -> None:
        """Tell the model how much of its audio was heard, in milliseconds."""
        await self.request(
            ConversationItemTruncate(item_id=item_id, audio_end_ms=audio_end_ms, content_index=content_index)
        )

    async def create_response(self, params: ResponseConfig | Mapping[str, Any] | None = None) -> str:
        """Ask for a response, and return its id when it has begun.

        One at a time: waits for the end of the active one, first. Refusals that may pass are retried within a budget.
        So are responses that fail for such a reason after they have begun, by the session itself.
        """
        self._check_open()
        config = params if isinstance(params, ResponseConfig) or params is None else ResponseConfig(**params)
        return await self._asking.create_response(config, self._new_id)

    async def cancel_response(self) -> None:
        """Stop the active response, and wait until it has ended. Harmless where there is none."""
        self._check_open()
        if self._asking.active is None:
            await trio.lowlevel.checkpoint()
            return
        with contextlib.suppress(RealtimeError):  # it had ended before the server heard of it
            await self.request(ResponseCancel())

    def statistics(self) -> RealtimeStatistics:
        """A snapshot."""
        names = [field.name for field in attrs.fields(RealtimeStatistics)]
        own = {"state", "audio_dropped_ms", "audio_waiting_ms", "router"}
        return RealtimeStatistics(
            state=self.state,
            audio_dropped_ms=self._outbox.dropped_ms,
            audio_waiting_ms=self._outbox.waiting_ms,
            router=self._router.statistics(),
            **{name: self._counts[name] for name in names if name not in own},
        )

    # -- connections, one after the other ---------------------------------------------------------------------------

    async def _run(self) -> None:
        """Have a connection until the session is left. Raises what no new connection can mend."""
        reason = ""
        try:
            while not self._leaving.is_set():
                async with contextlib.AsyncExitStack() as stack:
                    transport = await self._open_connection(stack)
                    self.state = RealtimeState.CONNECTED
                    self._counts["connections"] += 1
                    self._asking.connection_made()
                    self._opened.set()
                    if reason:
                        self._tell_renewed(reason)
                    ending = await self._converse(transport)
                    self.state = RealtimeState.RECONNECTING
                    self._asking.connected = False
                    if isinstance(ending, ConnectionLost):
                        reason = str(ending)
                        self._counts["losses"] += 1
                        if ending.code not in RECOVERABLE_CLOSE_CODES:
                            raise ending
                        self._outbox.drop_all()
                    else:
                        reason = ending
                        self._counts["renewals"] += not self._leaving.is_set()
                        self._outbox.drop_controls()
                    if not self._leaving.is_set():
                        self._tell_reconnecting(reason)
                    with trio.move_on_after(CLOSE_SECONDS):
                        await transport.aclose()
                self._cut_off()
                self._asking.connection_lost(reason)
        finally:
            self.state = RealtimeState.CLOSED
            self._router.end()
            self._asking.close()
            self._finished.set()

    async def _open_connection(self, stack: contextlib.AsyncExitStack) -> MessageTransport:
        """A greeted connection, after as many attempts as it takes; closed by ``stack``."""
        for attempt in range(MOST_ATTEMPTS):
            try:
                async with contextlib.AsyncExitStack() as trying:
                    transport = await trying.enter_async_context(self._connect())
                    await self._greet(transport)
                    stack.push_async_exit(trying.pop_all())
                    return transport
            except (ConnectError, ConnectionLost) as error:
                self._counts["failed_attempts"] += 1
                final = isinstance(error, ConnectError) and error.refused
                final |= isinstance(error, ConnectionLost) and error.code not in RECOVERABLE_CLOSE_CODES
                if final or attempt == MOST_ATTEMPTS - 1:
                    raise
                log.info("no connection to %s yet: %s", self._where, error)
            await trio.sleep(self._jitter() * min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt))
        raise AssertionError("the last attempt returns or raises")

    async def _greet(self, transport: MessageTransport) -> None:
        with trio.move_on_after(GREETING_SECONDS):
            self._sequence, self._repeats = SequenceCheck(), Repeats()
            hello = await self._await(transport, SessionCreated, "")
            self.session_id = hello.session.id or ""
            self.expires_at = hello.session.expires_at
            event_id = self._new_id("event")
            await self._write(transport, SessionUpdate(session=self._wanted, event_id=event_id))
            self._configured(self._wanted, await self._await(transport, SessionUpdated, event_id))
            await self._tell_again(transport)
            return
        raise ConnectError(f"{self._where} took longer than {GREETING_SECONDS:g} s to begin a session", reason="slow")

    async def _await(self, transport: MessageTransport, kind: type[AnyEvent], event_id: str) -> AnyEvent:
        """The next event of a kind. Raises :class:`RealtimeError` where the server refuses instead."""
        while True:
            event = self._take(await transport.receive())
            if isinstance(event, kind):
                return event
            if isinstance(event, ErrorEvent) and (event.error.event_id or "") in ("", event_id):
                raise refusal(event.error)

    async def _tell_again(self, transport: MessageTransport) -> None:
        """Put the conversation so far into a new connection, and then what no connection has confirmed."""
        events = self._replay.begin(self.conversation, self._new_id) if self._counts["connections"] else []
        events += self._unconfirmed.events

        async def put() -> None:
            for event in events:
                await self._write(transport, event)

        async with task_nursery() as nursery:
            nursery.start_soon(put)
            while self._replay.pending:
                self._take(await transport.receive())

    async def _converse(self, transport: MessageTransport) -> ConnectionLost | str:
        """Read and write until the connection is lost, or it is time for another: why."""
        endings: list[ConnectionLost | str] = []
        pen = Pen(transport)
        async with task_nursery() as nursery:

            async def read() -> None:
                while True:
                    try:
                        data = await transport.receive()
                    except ConnectionLost as loss:
                        end(loss)
                        return
                    self._take(data)

            async def write() -> None:
                with contextlib.suppress(ConnectionLost):  # the reader is told why, when it has read what came before
                    await pen.run(self._next_message, self._written)

            async def watch() -> None:
                await pen.watch()
                end(lost(1006, f"the server took nothing for {WRITE_SECONDS:g} s"))

            async def leave() -> None:
                await self._leaving.wait()
                end("left")

            async def renew() -> None:
                end(await self._time_to_renew())

            def end(why: ConnectionLost | str) -> None:
                endings.append(why)
                over.set()

            over = trio.Event()
            for task in (read, write, watch, leave, renew):
                nursery.start_soon(task, name=f"realtime {task.__name__}")
            await over.wait()
        return endings[0]

    async def _time_to_renew(self) -> str:
        if self.expires_at is None:
            await trio.sleep_forever()
        expires = self.expires_at - self._clock_offset
        await trio.sleep_until(max(expires - self._renew_before, trio.current_time() + RENEW_AT_LAST))
        with trio.move_on_at(expires - RENEW_AT_LAST):
            while self._caller_speaks or self._asking.busy:
                await self._changed.park()
        return "its time was nearly over"

    async def _next_message(self) -> bytes:
        entry = await self._outbox.take()
        if isinstance(entry, Audio):
            self._writing = ("input_audio_buffer.append", APPEND)
            self._counts["audio_sent_ms"] += len(entry.data) // self._bytes_per_ms()
            return append_message(entry.data)
        self._writing = (entry.TYPE, encode_client_event(entry, profile=self._profile))
        return self._writing[1]

    def _written(self) -> None:
        self._counts["events_sent"] += 1
        self.journal.sent(*self._writing)

    async def _write(self, transport: MessageTransport, event: ClientEvent) -> None:
        """For greetings: when one is cancelled, its connection is given up."""
        self._writing = (event.TYPE, encode_client_event(event, profile=self._profile))
        await transport.send(self._writing[1])
        self._written()

    # -- what the server says ---------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> ServerEvent:
        """Everything that is done with a message. Never waits."""
        received = decode_server_event(data)
        event = received.event
        self._counts["events_received"] += 1
        self.journal.received(received)
        for violation in self._sequence.check(received):
            self._counts["violations"] += 1
            self._tell_violation(violation)
        if self._repeats.has(received):
            self._counts["duplicates"] += 1
            return event
        if isinstance(event, ResponseOutputAudioDelta):
            self._router.route(event)  # most of what comes; it changes nothing in the books
            return event
        if isinstance(event, Unknown | Malformed):
            self._counts[type(event).__name__.lower()] += 1
        if self._replay.is_answer(event):
            return event
        self.conversation.apply(received)
        match event:
            case InputAudioBufferSpeechStarted():
                self._caller_speaks = True
                self._asking.caller_speaks()
            case InputAudioBufferSpeechStopped():
                self._caller_speaks = False
            case ErrorEvent():
                self._counts["errors"] += 1
        self._unconfirmed.heard(event)
        self._asking.heard(event)
        self._router.route(event)
        self._changed.unpark_all()
        return event

    def _cut_off(self) -> None:
        """What was under way in a connection that is gone gets no end from the server."""
        self._caller_speaks = False
        for response in self.conversation.active_responses:
            end = ResponseDone(response=attrs.evolve(response, status="incomplete"))
            self.conversation.apply(Received(event=end, wire_type=end.TYPE, raw=b""))

    def _configured(self, wanted: SessionConfig, answer: SessionUpdated) -> None:
        self.config = taken(wanted, answer)
        self._outbox.use(self._bytes_per_ms())

    def _bytes_per_ms(self) -> int:
        chosen = self.config.input_format
        return (chosen if isinstance(chosen, AudioFormat) else AudioFormat.PCM24K).bytes_per_ms

    def _named(self, event: ClientEvent) -> ClientEvent:
        """``event`` with an id, and with one for the item that it creates, where they have none."""
        if event.event_id is UNSET:
            event = attrs.evolve(event, event_id=self._new_id("event"))
        if isinstance(event, ConversationItemCreate) and event.item.id is None:
            event = attrs.evolve(event, item=attrs.evolve(event.item, id=self._new_id("item")))
        return event

    def _new_id(self, kind: str) -> str:
        self._serial += 1
        return f"{kind}_agentao_{self._serial}"

    def _check_open(self) -> None:
        if self.state is RealtimeState.CLOSED:
            raise SessionClosed("the session with the model is over")

    async def _leave(self) -> None:
        """Send what is queued, and close. Cancelled, it closes without a goodbye."""
        if self.state is RealtimeState.CONNECTED:
            await self._outbox.wait_empty()
        self._leaving.set()
        if self.state is RealtimeState.CONNECTED:
            await self._finished.wait()


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
    append_ms: int = APPEND_MS,
    renew_before: float = RENEW_BEFORE,
    jitter: Callable[[], float] = random.random,
    journal_bytes: int = MOST_BYTES,
    journal_words: Words = "keep",
) -> AsyncIterator[RealtimeSession]:
    """Open a session with the model at ``url``: configured when the block begins, closed when it ends or is cancelled.

    ``headers`` are for servers that want others than ``Authorization``; ``connect`` takes the place of the WebSocket.
    ``append_ms`` of audio are sent at a time (20 to 60), ``renew_before`` seconds before its time is over a connection
    is replaced, ``jitter`` gives fractions of pauses, and ``journal_bytes`` of messages are kept in the journal, with
    ``journal_words="drop"`` without anything that was said, or given to tools.

    Raises ValueError for a URL that is none, a key that would travel in the clear, or a ``renew_before`` below 5 s,
    :class:`AuthenticationError` where the key is refused, :class:`ConnectError` or :class:`ConnectionLost` where there
    is no connection after all attempts, and :class:`RealtimeError` where the model refuses the configuration. The same
    errors end the block when a connection is lost later and cannot be replaced.
    """
    if renew_before < RENEW_AT_LAST:
        raise ValueError(f"renew_before is {renew_before:g} s, and has to be {RENEW_AT_LAST:g} s or more")
    secrets = [api_key, *(value.removeprefix("Bearer ") for name, value in (headers or {}).items() if is_secret(name))]
    if connect is None:
        sent = dict(headers or {})
        if api_key is not None:
            sent["Authorization"] = f"Bearer {api_key}"
        if profile is Profile.LEGACY:
            sent["OpenAI-Beta"] = "realtime=v1"
        connect = websocket(url, headers=sent, ssl_context=ssl_context)
    with leaving_bare(), leaving_bare():
        async with service_nursery() as services:
            session = RealtimeSession(
                services,
                connect,
                where=address(url),
                config=config,
                profile=profile,
                uplink_ms=uplink_ms,
                append_ms=append_ms,
                renew_before=renew_before,
                jitter=jitter,
                journal=Journal(
                    clock=trio.current_time,
                    most_bytes=journal_bytes,
                    words=journal_words,
                    secrets=[secret for secret in secrets if secret],
                ),
            )
            services.start_soon(session._run, name=f"realtime session at {address(url)}")
            await session._opened.wait()
            try:
                yield session
            finally:
                with trio.move_on_after(CLOSE_SECONDS, shield=True):
                    await session._leave()
