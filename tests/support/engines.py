"""Engines without a network: copies of them, one that never takes a short way, and all that can be seen of one."""

from __future__ import annotations

import contextlib
import copy
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
from aioquic.quic import events
from aioquic.quic.connection import QuicConnection, QuicConnectionState
from hypothesis import settings

from agentao_trio._engine import Engine, StockEngine

__all__ = ["LongWay", "copied", "dice_for_ids", "examples", "seen", "timers_agree"]


def examples(count: int) -> int:
    """How many examples a property is tried with: many more where somebody searches for one that fails."""
    return count * 20 if settings.get_current_profile_name() == "search" else count


def copied(engine: Any, kind: type[StockEngine] | None = None) -> Any:
    """A copy with the same keys, which shares with the original only what neither changes."""
    memo: dict[int, Any] = {id(part): part for part in (engine.tls, engine._logger, engine._configuration)}
    for pair in (*engine._cryptos.values(), *engine._cryptos_initial.values()):
        for half in (pair.recv, pair.send):
            memo |= {id(part): part for part in (half.aead, half.hp) if part is not None}
    memo |= {id(buffer): buffer for buffer in engine._crypto_buffers.values()}
    new = copy.deepcopy(engine, memo)
    if kind is not None:
        new.__class__ = kind
    return new


class LongWay(Engine):
    """Our engine without short ways: aioquic reads every datagram, and is asked every time whether it has something
    to say. One difference is wanted and made good here: ours acknowledges at once where a packet is out of order."""

    _asks = False

    @property
    def _is_quiet(self) -> bool:
        return False

    @_is_quiet.setter
    def _is_quiet(self, value: bool) -> None:
        pass

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        space, is_ordinary, self._asks = self._space, self._is_ordinary(data, addr), False
        largest, before = space.largest_received_packet, set(space.received_packets._received)
        QuicConnection.receive_datagram(self, data, addr, now)
        new = space.received_packets._received - before
        if is_ordinary and self._asks and new and new != {largest + 1}:
            space.ack_at = now

    def _payload_received(self, *args: Any, **kwargs: Any) -> tuple[bool, bool]:
        self._asks, is_probing = super()._payload_received(*args, **kwargs)
        return self._asks, is_probing


@contextlib.contextmanager
def dice_for_ids() -> Iterator[Any]:
    """Have aioquic draw connection ids and challenges from dice: call the result with those that are to be used."""
    current = [random.Random(0)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "urandom", lambda size: current[0].randbytes(size))
        yield lambda dice: current.__setitem__(0, dice)


def timers_agree(engine: Engine) -> bool:
    """Whether our shorter way to the timer leads where aioquic's does."""
    if engine._close_at is None or engine._state is QuicConnectionState.TERMINATED:
        return True
    return engine.get_timer() == QuicConnection.get_timer(engine)


def seen(engine: Engine) -> dict[str, Any]:
    """All that one could ask an engine, and all that decides on what it does next; takes its events away."""
    said: list[events.QuicEvent] = []
    while (event := engine.next_event()) is not None:
        said.append(event)
    space, loss = engine._space, engine._loss
    return {
        "events": said,
        "close": (engine._state, engine._close_pending, engine._close_event),
        "streams": {n: _stream(stream) for n, stream in engine._streams.items()},
        "talkative": [stream.stream_id for stream in engine._talkative],
        "blocked": [stream.stream_id for stream in engine._blocked],
        "limits": [
            (limit.value, limit.sent, limit.used)
            for limit in (engine._local_max_data, engine._local_max_streams_bidi, engine._local_max_streams_uni)
        ],
        "remote": (
            engine._remote_max_data,
            engine._remote_max_data_used,
            engine._remote_max_streams_bidi,
            engine._remote_max_streams_uni,
        ),
        "received": (
            list(space.ack_queue),
            space.ack_at,
            space.largest_received_packet,
            space.largest_received_time,
            space.expected_packet_number,
            space.received_packets._received,
            engine._spin_bit,
            engine._spin_highest_pn,
            engine._crypto.key_phase,
            engine._ack_eliciting_sent_since_receipt,
        ),
        "sent": (
            engine._packet_number,
            list(space.sent_packets),
            space.ack_eliciting_in_flight,
            space.largest_acked_packet,
            space.loss_time,
            loss._pto_count,
            loss.bytes_in_flight,
            loss.congestion_window,
            loss._rtt_smoothed,
            loss._rtt_variance,
            engine.packets_lost,
        ),
        "pending": (
            engine._ping_pending,
            engine._probe_pending,
            engine._handshake_done_pending,
            engine._retire_connection_ids,
        ),
        "ids": (
            [(c.cid, c.was_sent) for c in engine._host_cids],
            engine.host_cid,
            engine._peer_cid.cid,
            [c.cid for c in engine._peer_cid_available],
        ),
        "paths": [
            (p.addr, p.is_validated, p.bytes_received, p.bytes_sent, list(p.remote_challenges), p.local_challenge_sent)
            for p in engine._network_paths
        ],
        "close_at": engine._close_at if engine._close_at is None else round(engine._close_at, 9),
        "timer": engine.timer if engine.timer is None else round(engine.timer, 9),
    }


def _stream(stream: Any) -> tuple[Any, ...]:
    receiver, sender = stream.receiver, stream.sender
    return (
        receiver.highest_offset,
        receiver._buffer_start,
        bytes(receiver._buffer),
        list(receiver._ranges),
        receiver._final_size,
        receiver.is_finished,
        receiver.stop_pending,
        sender.highest_offset,
        bytes(sender._buffer),
        sender._buffer_start,
        sender._buffer_fin,
        sender.is_finished,
        sender.reset_pending,
        sender._reset_error_code,
        list(sender._pending),
        sender._pending_eof,
        sender.buffer_is_empty,
        stream.max_stream_data_local,
        stream.max_stream_data_local_sent,
        stream.max_stream_data_remote,
    )
