"""aioquic is not asked while it has nothing to say: nothing may be left unsaid by that, and no timer be wrong."""

from __future__ import annotations

import pytest
from aioquic.quic import events

from agentao_trio._engine import Engine
from tests.support.engines import timers_agree
from tests.unit.test_engine import SERVER, push, settle, wire

# -- one by one -----------------------------------------------------------------------------------------------------


def test_nothing_is_written_to_a_stream_that_was_reset_before_anything_was_written() -> None:
    """It would be data behind the final size that the reset has told, which ends the connection."""
    w = wire("agentao")
    server = w.shake_hands()
    stream_id = w.client.open_stream(unidirectional=False)
    assert stream_id is not None
    w.client.send_stream_data(stream_id, b"?")
    w.run(lambda: w.received("server", stream_id) == b"?")
    server.reset_stream(stream_id, 3)
    with pytest.raises(RuntimeError, match="reset"):
        server.send_stream_data(stream_id, b"!")
    w.run(lambda: w.happened("client", events.StreamReset) == 1)
    settle(w, 1.0)
    assert w.client.end is None


def test_the_timer_of_a_connection_that_closes_is_the_end_of_it() -> None:
    w = wire("agentao")
    w.shake_hands()
    settle(w, 1.0)
    push(w, 100)
    w.client.datagrams_to_send(w.now)
    w.client.close_with(0, "")
    assert len(w.client.datagrams_to_send(w.now)) == 1
    assert w.client.timer == w.client._close_at
    assert isinstance(w.client, Engine)
    assert timers_agree(w.client)


def test_little_may_be_sent_to_an_address_that_is_not_validated_but_that_is() -> None:
    """Three times what came from there (RFC 9000 §9.3.1): challenge first, then acknowledgements; no timer that is due
    stays so."""
    w = wire("agentao")
    server = w.shake_hands()
    stream_id = push(w, 100)
    settle(w, 1.0)
    said: list[int] = []
    heard = 0
    for _ in range(20):
        w.client.send_stream_data(stream_id, bytes(60))
        for datagram, _ in w.client.datagrams_to_send(w.now):
            server.receive_datagram(datagram, ("10.0.0.7", 7), w.now)
            heard += len(datagram)
        for _ in range(3):
            w.now += 0.007
            if server.timer is not None and server.timer <= w.now:
                server.handle_timer(w.now)
            for datagram, to in server.datagrams_to_send(w.now):
                assert to == ("10.0.0.7", 7)
                said.append(len(datagram))
                if len(said) > 1:  # the challenge is lost
                    w.client.receive_datagram(datagram, SERVER, w.now)
            assert sum(said) <= 3 * heard or server._network_paths[0].is_validated
            assert server.timer is not None
            assert server.timer > w.now
    assert len(said) >= 10
    assert server._space.ack_at is None or server._space.ack_at > w.now  # type: ignore[attr-defined]
