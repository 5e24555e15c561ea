"""aioquic is not asked while it has nothing to say: nothing may be left unsaid by that, and no timer be wrong.

Two engines of either kind talk over a network that loses, repeats, reorders and damages what they say; in the end all
has arrived, both have said all they have to say, and nobody has been asked in vain for ever.
"""

from __future__ import annotations

from typing import Any

import pytest
from aioquic.quic import events
from aioquic.tls import Epoch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentao_trio._engine import Engine, FrontDoor, StockEngine, TransportSettings, server_configuration
from tests.support.engines import copied, examples, timers_agree
from tests.support.quic import server_tls
from tests.unit.test_engine import CLIENT, SERVER, Wire, push, settle, wire

KINDS = [("agentao", "agentao"), ("agentao", "stock"), ("stock", "agentao")]

#: Bytes of the largest datagrams that are looked for, and that the network carries.
MOST, CARRIED = 8848, 1452


class Talk:
    """A client and a server and the datagrams between them; what was written to streams, and what came out."""

    def __init__(self, client: str, server: str) -> None:
        limits: Any = {"max_data": 6_000, "max_stream_data": 3_000, "max_inbound_streams": 3}
        w = Wire(TransportSettings(engine=client, **limits))  # type: ignore[arg-type]
        theirs = TransportSettings(engine=server, **limits)  # type: ignore[arg-type]
        w.door = FrontDoor(theirs, server_configuration(theirs, server_tls()))
        self.sides: list[StockEngine] = [w.client, w.shake_hands()]
        for side in self.sides:
            side.search_mtu(MOST)
        self.now = w.now
        self.client_address = CLIENT
        self.under_way: list[list[bytes]] = [[], []]  # to the server, to the client
        self.seen: list[list[bytes]] = [[], []]
        self.written: dict[tuple[int, int], bytearray] = {}
        self.ended: dict[tuple[int, int], str] = {}
        self.stopped: set[tuple[int, int]] = set()
        self.got: dict[tuple[int, int], bytearray] = {}
        self.got_end: dict[tuple[int, int], str] = {}
        self.finishing: list[set[int]] = [set(), set()]
        self.closed = False
        self.pings = [0, 0]
        self.pongs = [0, 0]
        self.pump()

    # -- the program

    def open(self, side: int, unidirectional: int) -> None:
        stream_id = self.sides[side].open_stream(unidirectional=unidirectional > 0)
        if stream_id is not None:
            self.written[side, stream_id] = bytearray()
            self.write(side, len(self.written) - 1)

    def _mine(self, side: int, which: int) -> tuple[int, int] | None:
        mine = [key for key in self.written if key[0] == side and key not in self.ended]
        return mine[which % len(mine)] if mine else None

    def write(self, side: int, which: int) -> None:
        if (key := self._mine(side, which)) is not None:
            data = bytes((which * 7 + i) % 251 for i in range((0, 5, 260, 1_000, 5_000)[which % 5]))
            self.sides[side].media.written += len(data)
            self.sides[side].sender(key[1]).write(data)
            self.written[key] += data

    def end(self, side: int, which: int) -> None:
        if (key := self._mine(side, which)) is not None:
            self.sides[side].send_stream_data(key[1], b"", end_stream=True)
            self.ended[key] = "end"

    def reset(self, side: int, which: int) -> None:
        if (key := self._mine(side, which)) is not None:
            self.sides[side].reset_stream(key[1], 3)
            self.ended[key] = "reset"

    def stop(self, side: int, which: int) -> None:
        got = [key for key in self.got if key[0] != side and key not in self.got_end]
        if got:
            key = got[which % len(got)]
            self.sides[side].stop(key[1], 4)
            self.stopped.add(key)

    def ping(self, side: int, which: int) -> None:
        self.pings[side] += 1
        self.sides[side].send_ping(self.pings[side])

    def update_keys(self, side: int, which: int) -> None:
        if self._is_at_home():
            self.sides[side].request_key_update()
            self.ping(side, which)  # or nobody would hear of it if the one packet that tells it were lost

    def change_id(self, side: int, which: int) -> None:
        self.sides[0].change_connection_id()
        self._wake(self.sides[0])

    def close(self, side: int, which: int) -> None:
        if which == 0:
            self.sides[side].close_with(5, "enough")
            self.closed = True

    # -- the network

    def deliver(self, side: int, which: int) -> None:
        for _ in range(1 + which % 4):
            if self.under_way[side]:
                self._arrives(side, self.under_way[side].pop(0))

    def lose(self, side: int, which: int) -> None:
        del self.under_way[side][which % 3 : which % 3 + 1 + which % 2]

    def reorder(self, side: int, which: int) -> None:
        if self.under_way[side]:
            self._arrives(side, self.under_way[side].pop(which % len(self.under_way[side])))

    def repeat(self, side: int, which: int) -> None:
        if self.seen[side]:
            self._arrives(side, self.seen[side][which * 31 % len(self.seen[side])])

    def damage(self, side: int, which: int) -> None:
        if self.seen[side]:
            data = bytearray(self.seen[side][-1 - which % min(3, len(self.seen[side]))])
            data[which * 37 % len(data)] ^= 1 << which % 8
            self._arrives(side, bytes(data[: len(data) - which % 4 // 3 * 9]))

    def move(self, side: int, which: int) -> None:
        if self._is_at_home():
            self.client_address = ("10.0.0.1", 100 + which % 3)

    def _is_at_home(self) -> bool:
        """aioquic forgets its old keys at once: a server that changes them cannot be told where its client is now."""
        phases = {engine._cryptos[Epoch.ONE_RTT].key_phase for engine in self.sides}
        path = self.sides[1]._network_paths[0]
        return len(phases) == 1 and path.is_validated and path.addr == self.client_address

    def wait(self, side: int, which: int) -> None:
        self.now += (0.0, 0.001, 0.006, 0.02, 0.1, 1.0)[which % 6]

    def _arrives(self, side: int, datagram: bytes) -> None:
        """``side`` is whose datagram it was."""
        self.sides[1 - side].receive_datagram(datagram, self.client_address if side == 0 else SERVER, self.now)
        self._collect(1 - side)

    # -- what a driver does

    def _wake(self, engine: StockEngine) -> None:
        if isinstance(engine, Engine):
            engine._is_quiet = False  # our driver never asks for another connection id

    def pump(self) -> None:
        for side, engine in enumerate(self.sides):
            for _ in range(4):
                if engine.timer is not None and engine.timer <= self.now:
                    engine.handle_timer(self.now)
                    self._collect(side)
                for datagram, to in engine.datagrams_to_send(self.now):
                    probe = engine._path_mtu._candidate if isinstance(engine, Engine) else None
                    assert len(datagram) <= engine.datagram_size or len(datagram) == probe
                    if len(datagram) <= CARRIED and (side == 0 or to == self.client_address):
                        self.under_way[side].append(datagram)
                        self.seen[side].append(datagram)
                if isinstance(engine, Engine):
                    assert timers_agree(engine)
                if engine.timer is None or engine.timer > self.now:
                    break
            else:
                # Rounding can make a due loss timer do nothing; a millisecond later it does.
                assert engine.timer is None or engine.timer > self.now - 1e-6, "a timer that stays due"

    def _collect(self, side: int) -> None:
        engine = self.sides[side]
        while (event := engine.next_event()) is not None:
            if isinstance(event, events.StreamDataReceived):
                key = (1 - side, event.stream_id)
                assert key not in self.got_end
                self._accept(side, event.stream_id)
                self.got[key] += event.data
                engine.consumed(event.stream_id, len(event.data), 0)
                if event.end_stream:
                    self.got_end[key] = "end"
            elif isinstance(event, events.StreamReset):
                self._accept(side, event.stream_id)
                engine.cut_short(event.stream_id)
                self.got_end[1 - side, event.stream_id] = "reset"
            elif isinstance(event, events.StopSendingReceived):
                self.ended[side, event.stream_id] = "reset"
            elif isinstance(event, events.PingAcknowledged):
                self.pongs[side] += 1
        for stream_id in list(self.finishing[side]):
            ours, theirs = (side, stream_id), (1 - side, stream_id)
            if (
                (ours not in self.written or ours in self.ended)
                and (theirs in self.got_end)
                and engine.discard(stream_id)
            ):
                self.finishing[side].remove(stream_id)
                engine.release(stream_id)

    def _accept(self, side: int, stream_id: int) -> None:
        if (1 - side, stream_id) not in self.got:
            self.got[1 - side, stream_id] = bytearray()
            if not self.sides[side].is_initiator(stream_id):
                self.finishing[side].add(stream_id)
                if not stream_id & 2:
                    self.written.setdefault((side, stream_id), bytearray())

    def is_silent(self) -> bool:
        spaces = [engine._spaces[Epoch.ONE_RTT] for engine in self.sides]
        return (
            not any(self.under_way)
            and self.pings == self.pongs
            and all(engine.is_drained() for engine in self.sides)
            and all(space.ack_at is None and not space.ack_eliciting_in_flight for space in spaces)
        )

    def finish(self) -> None:
        """No more losses, and time goes on, until all has been said."""
        deadline = self.now + 40.0
        self._end_all()
        self._ping_as_a_driver_does()
        while not self.is_silent() and self.now < deadline:
            for side in (0, 1):
                while self.under_way[side]:
                    self._arrives(side, self.under_way[side].pop(0))
            self._end_all()
            self.pump()
            if not any(self.under_way) and not self.is_silent():
                due = [engine.timer for engine in self.sides if engine.timer is not None]
                self.now = max(self.now + 0.001, min([*due, self.ping_at]))
                self.pump()
                if self.now >= self.ping_at:
                    self._ping_as_a_driver_does()

    def _ping_as_a_driver_does(self) -> None:
        """Or a server would never hear that its client has moved."""
        self.ping_at = self.now + 0.75
        if not self.closed:
            self.ping(0, 0)
        self.pump()

    def _end_all(self) -> None:
        if not self.closed:
            for side, stream_id in [key for key in self.written if key not in self.ended]:
                self.sides[side].send_stream_data(stream_id, b"", end_stream=True)
                self.ended[side, stream_id] = "end"

    def check_end(self) -> None:
        """Both know of it, be it because the other one is silent, and neither has an appointment any more."""
        for _ in range(10):
            self.now += 20.0
            self.pump()
        assert all(engine.end is not None and engine.timer is None for engine in self.sides)

    def check(self) -> None:
        assert [engine.end for engine in self.sides] == [None, None]
        assert self.is_silent()
        for key, data in self.written.items():
            got = bytes(self.got.get(key, b""))
            if self.ended[key] == "end":
                assert got == data
                assert self.got_end[key] == "end"
            else:
                assert data.startswith(got)
                assert key in self.got_end
        for engine in self.sides:
            assert engine._loss.bytes_in_flight == 0
            if isinstance(engine, Engine):
                assert not engine._talkative
                assert all(stream.sender.buffer_is_empty for stream in engine._blocked)  # those were reset
                assert nothing_left_to_say(engine, self.now)


def nothing_left_to_say(engine: Engine, now: float) -> bool:
    asked = copied(engine)
    asked._is_quiet = False
    return not asked.datagrams_to_send(now)


PROGRAM = st.tuples(
    st.sampled_from(["open", "open", "write", "write", "write", "end", "reset", "stop", "ping", "update_keys"]),
    st.integers(0, 1),
    st.integers(0, 20),
)
NETWORK = st.tuples(
    st.sampled_from(["deliver"] * 6 + ["lose", "lose", "reorder", "repeat", "damage", "wait", "wait", "wait"]),
    st.integers(0, 1),
    st.integers(0, 500),
)
RARE = st.tuples(st.sampled_from(["move", "change_id", "move", "close"]), st.integers(0, 1), st.integers(0, 4))
STEPS = st.lists(st.one_of(PROGRAM, PROGRAM, NETWORK, NETWORK, NETWORK, RARE), min_size=10, max_size=60)


@pytest.mark.parametrize(("client", "server"), KINDS)
@settings(max_examples=examples(100))
@given(steps=STEPS)
@example(
    steps=[*[("open", 0, 0)] * 5, ("open", 1, 0), ("deliver", 1, 0), ("wait", 0, 1), ("move", 0, 0), ("open", 1, 0)]
)
def test_nothing_is_left_unsaid(client: str, server: str, steps: list[tuple[str, int, int]]) -> None:
    talk = Talk(client, server)
    for what, side, which in steps:
        getattr(talk, what)(side, which)
        talk.pump()
        for engine in talk.sides:
            if isinstance(engine, Engine) and engine._is_quiet and what in ("lose", "ping", "update_keys", "wait"):
                assert nothing_left_to_say(engine, talk.now)
        if talk.closed:
            break
    talk.finish()
    if talk.closed:
        talk.check_end()
    else:
        talk.check()


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


def test_a_client_that_has_moved_is_read_the_short_way_again() -> None:
    w = wire("agentao")
    server = w.shake_hands()
    stream_id = push(w, 100)
    settle(w, 1.0)
    for _ in range(40):
        w.client.send_stream_data(stream_id, bytes(170))
        for datagram, _ in w.client.datagrams_to_send(w.now):
            server.receive_datagram(datagram, ("10.0.0.7", 7), w.now)
        w.now += 0.02
        for datagram, _ in server.datagrams_to_send(w.now):
            w.client.receive_datagram(datagram, SERVER, w.now)

    assert server._network_paths[0].is_validated
    assert server.datagrams_ordinary > 20
