"""Writing to one connection: each message whole, none for ever.

A part of a message on the wire is the end of the connection, so that a message which has been begun is finished, also
where everything around it is cancelled. A scope for each would cost more than the message: there is one for all of
them, shielded, and one watch, which ends it when nobody writes, and gives a message that is being written the rest of
its time.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable

import trio

from agentao_trio.realtime.connection import MessageTransport

__all__ = ["APPEND", "WRITE_SECONDS", "Pen", "append_message"]

#: Seconds that one message may take to be written; after that the connection is given up.
WRITE_SECONDS = 5.0
#: What a journal keeps of an append: all but the audio.
APPEND = b'{"type":"input_audio_buffer.append","audio":""}'
_HEAD, _TAIL = APPEND[:-2], APPEND[-2:]


def append_message(audio: bytes) -> bytes:
    """The message that appends ``audio`` to the model's input."""
    return b"".join((_HEAD, b64encode(audio), _TAIL))


class Pen:
    """Writes to ``transport``: :meth:`run` in one task, and :meth:`watch` beside it in another."""

    def __init__(self, transport: MessageTransport) -> None:
        self._transport = transport
        self._scope = trio.CancelScope(shield=True)
        self._began: float | None = None
        self._stopped = False

    def __repr__(self) -> str:
        state = "stopped" if self._stopped else "writing" if self._began is not None else "waiting"
        return f"<Pen {state}>"

    async def run(self, take: Callable[[], Awaitable[bytes]], written: Callable[[], object]) -> None:
        """Write what ``take`` gives, and call ``written`` after each, until :meth:`watch` ends.

        Raises :class:`ConnectionLost`. A cancellation from outside is not seen here, but there.
        """
        with self._scope:
            while not self._stopped:
                data = await take()
                self._began = trio.current_time()
                await self._transport.send(data)
                self._began = None
                written()

    async def watch(self) -> None:
        """Return when a message has taken longer than ``WRITE_SECONDS``.

        When this ends, by cancellation too, no other message is begun.
        """
        try:
            while True:
                began = trio.current_time() if self._began is None else self._began
                await trio.sleep_until(began + WRITE_SECONDS)
                if self._began is not None and trio.current_time() >= self._began + WRITE_SECONDS:
                    return
        finally:
            self._stopped = True
            if self._began is None:
                self._scope.cancel()
            else:
                self._scope.deadline = self._began + WRITE_SECONDS
