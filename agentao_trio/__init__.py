"""A trio structured-concurrency framework for phone-call agents.

:func:`open_session` connects to a gateway; :class:`Session` places and takes calls; :class:`ActiveCall` is one of them.
"""

from agentao_trio import config, events
from agentao_trio.audio import AudioFrame, Codec
from agentao_trio.call import ActiveCall, CallEnding
from agentao_trio.callstate import CallState
from agentao_trio.client import AgenTaoClient, serve
from agentao_trio.credentials import ServiceAccount, TokenSource
from agentao_trio.errors import (
    AgentaoError,
    AuthenticationError,
    CallAnswerFailed,
    CallConnectFailed,
    CallEnded,
    CallError,
    CallOverrun,
    CallStateError,
    CommandError,
    CommandRejected,
    CommandTimeout,
    ConnectError,
    ConnectionLost,
    EventsOverrun,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    SessionClosed,
    StreamReset,
    TransportError,
)
from agentao_trio.events import EventRecord
from agentao_trio.logs import JsonLines, mask_phone_numbers
from agentao_trio.messages import DialplanAction, ErrorCode, EventType, InboundRule
from agentao_trio.session import Session, open_session
from agentao_trio.statistics import CallStatistics, SessionState, SessionStatistics
from agentao_trio.transport import ClientTLS, TransportSettings
from agentao_trio.watchdog import Watchdog

__version__ = "0.1.0.dev0"

__all__ = [
    "ActiveCall",
    "AgenTaoClient",
    "AgentaoError",
    "AudioFrame",
    "AuthenticationError",
    "CallAnswerFailed",
    "CallConnectFailed",
    "CallEnded",
    "CallEnding",
    "CallError",
    "CallOverrun",
    "CallState",
    "CallStateError",
    "CallStatistics",
    "ClientTLS",
    "Codec",
    "CommandError",
    "CommandRejected",
    "CommandTimeout",
    "ConnectError",
    "ConnectionLost",
    "DialplanAction",
    "ErrorCode",
    "EventRecord",
    "EventType",
    "EventsOverrun",
    "InboundRule",
    "JsonLines",
    "LocalProtocolError",
    "ProtocolError",
    "RemoteProtocolError",
    "ServiceAccount",
    "Session",
    "SessionClosed",
    "SessionState",
    "SessionStatistics",
    "StreamReset",
    "TokenSource",
    "TransportError",
    "TransportSettings",
    "Watchdog",
    "config",
    "events",
    "mask_phone_numbers",
    "open_session",
    "serve",
]
