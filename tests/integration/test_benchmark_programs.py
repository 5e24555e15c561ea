"""The programs of the benchmarks talk to each other over real sockets. What they measure is not judged here."""

from __future__ import annotations

import sys

import pytest

from benchmarks import profile
from benchmarks.contest import ASYNCIO, OURS, STOCK, open_contest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pins processes and reads /proc")


def test_every_client_is_heard_and_hears_itself() -> None:
    with open_contest() as contest:
        for client in (OURS, STOCK, ASYNCIO):
            report = contest.talk(client, 2, 2.0)  # a busy machine may let a moment pass without any packet
            assert report.sent > 0
            assert report.received > 0
            assert (report.floor > 0) == (report.floor_in_a_loop > 0) == (client != ASYNCIO)
        assert [client for client, _, _ in contest.runs] == [OURS, STOCK, ASYNCIO]


def test_rpcs_are_measured_by_quarters() -> None:
    with open_contest() as contest:
        quarters = contest.run("benchmarks.growth_client", "rpcs", "80", timeout=300)
        assert len(quarters) == 4
        assert min(quarters) > 0


def test_the_profile_names_rooms() -> None:
    with open_contest() as contest:
        rows = list(profile.measure(contest, quick=True))
    if rows[0].missing:
        pytest.skip(rows[0].missing)  # a container may forbid to look into another process
    shares = {row.name: row.value or 0.0 for row in rows}
    assert sum(shares.values()) == pytest.approx(100.0)
    assert {"trio: scheduling and waiting", "QUIC: packets and streams (ours)"} <= set(shares)


def test_what_belongs_to_no_room_counts_for_its_caller() -> None:
    samples = (
        "run (trio/_core/_run.py:5);_mask (aioquic/_crypto.py:3) 2",
        "run (trio/_core/_run.py:5);feed (agentao_trio/wire.py:9);dumps (json/__init__.py:3) 3",
        "<module> (site.py:1) 1",
        "run (trio/_core/_run.py:5);torn \t",
        "measure_floor (benchmarks/floor.py:80);encrypt_packet (aioquic/quic/crypto.py:3) 7",
    )
    assert profile.rooms_of(samples) == {"encryption and decryption": 2, "codec": 3, "elsewhere": 1}
