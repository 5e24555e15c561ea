"""Ports of loopback that nobody else comes by meanwhile, however many tests run at once."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator

__all__ = ["free_port", "silent_port"]

LOOPBACK = "127.0.0.1"
#: Above what needs privileges and below what kernels hand out by themselves, to every client that connects.
_CHOICE = range(20_000, 32_000)


def free_port() -> int:
    """A port to listen on, now and again later; for who can listen on port 0, and once only, that is better."""
    dice = random.SystemRandom()  # two processes must not come to the same
    while True:
        port = dice.choice(_CHOICE)
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            tcp.bind((LOOPBACK, port))
            udp.bind((LOOPBACK, port))
            return port


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A UDP port on which nobody listens for as long as the block lasts."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reserved:
        reserved.bind((LOOPBACK, 0))
        reserved.connect((LOOPBACK, 9))  # it hears that one alone; others are told that nobody is there
        port: int = reserved.getsockname()[1]
        yield port
