"""What outsiders rely on: the names of the package, and that they are typed."""

from __future__ import annotations

from pathlib import Path

import agentao_trio

#: Changing this list is changing what programs import: it belongs in the changelog.
NAMES = """
    ActiveCall AgenTaoClient AgentaoError AudioFrame AuthenticationError CallAnswerFailed CallConnectFailed CallEnded
    CallEnding CallError CallOverrun CallState CallStateError CallStatistics ClientTLS Codec CommandError
    CommandRejected CommandTimeout ConnectError ConnectionLost DialplanAction ErrorCode EventRecord EventType
    EventsOverrun InboundRule JsonLines LocalProtocolError ProtocolError RemoteProtocolError ServiceAccount Session
    SessionClosed SessionState SessionStatistics StreamReset TokenSource TransportError TransportSettings Watchdog
    config events mask_phone_numbers open_session serve
""".split()  # noqa: SIM905 - a list of words


def test_the_names_of_the_package_are_these() -> None:
    assert sorted(agentao_trio.__all__) == sorted(NAMES)
    for name in NAMES:
        assert getattr(agentao_trio, name) is not None


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(agentao_trio.__file__).with_name("py.typed").is_file()
