"""One RPC: one request on a bidirectional stream of its own, and whatever the gateway answers (PROTOCOL section 3)."""

from __future__ import annotations

from typing import Any

from agentao_trio import messages
from agentao_trio.errors import CommandRejected, RemoteProtocolError, StreamReset
from agentao_trio.legible import legible
from agentao_trio.messages import ErrorCode, MethodId
from agentao_trio.transport import Connection
from agentao_trio.wire import MAX_FRAME_LENGTH, decode_reply, encode_request

__all__ = ["exchange"]

#: PROTOCOL section 12: these may be tried again after a pause, all others never.
_RETRYABLE = frozenset({ErrorCode.ERR_RATE_LIMITED, ErrorCode.ERR_CIRCUIT_BREAKER, ErrorCode.ERR_INTERNAL_ERROR})


async def exchange(connection: Connection, method: MethodId, message: Any, *, rpc_length: str) -> Any:
    """Send ``message`` and return the decoded reply, None where the gateway finished the stream without one.

    Framed and bare replies are told apart by their bytes (PROTOCOL section 4.2). Raises :class:`LocalProtocolError` for
    a message that cannot be encoded, :class:`CommandRejected` for an error code or a reset stream,
    :class:`RemoteProtocolError` for a reply that is not one and :class:`ConnectionLost`. Waits for the end of the reply
    without a limit of its own. Cancelled, the stream is abandoned; the command may have been carried out.
    """
    request = encode_request(method, messages.encode(message), rpc_length=rpc_length)
    stream = await connection.open_bidi()
    received = bytearray()
    try:
        await stream.send_all(request)
        stream.finish()
        while chunk := await stream.receive_some():
            received += chunk
            if len(received) > MAX_FRAME_LENGTH:
                raise RemoteProtocolError(
                    f"the reply to {method.name} is longer than {MAX_FRAME_LENGTH} bytes",
                    reason="bad_response",
                    stream_id=stream.stream_id,
                )
    except StreamReset as reset:
        raise CommandRejected(
            f"the gateway reset the stream of {method.name} (code {reset.code}) instead of answering",
            method=method.name,
        ) from reset
    finally:
        stream.abandon()
    return _decode(method, bytes(received))


def _decode(method: MethodId, received: bytes) -> Any:
    reply = decode_reply(received, method)
    if reply.form == "none":
        return None
    message: Any = messages.decode(messages.METHODS[method].reply, reply.body)
    code = getattr(message, "error_code", ErrorCode.SUCCESS)
    if code != ErrorCode.SUCCESS:
        name = code.name if isinstance(code, ErrorCode) else "a code we do not know"
        raise CommandRejected(
            f"{method.name} was refused: {name} ({int(code)}): {legible(message.error_message)}",
            method=method.name,
            code=int(code),
            retryable=code in _RETRYABLE,
        )
    return message
