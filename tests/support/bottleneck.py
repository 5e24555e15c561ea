"""An in-memory network that carries so many bits a second, with a queue that overflows, as a slow line does."""

from __future__ import annotations

from typing import Any

import trio

from agentao_trio.testing import MemoryNetwork, MemorySocket
from agentao_trio.transport import Address

__all__ = ["Bottleneck"]


_HEADERS = 28  # bytes of IPv4 and UDP


class Bottleneck(MemoryNetwork):
    """``bits_per_second`` in each direction; what would wait longer than ``queue`` seconds is lost."""

    def __init__(self, *, bits_per_second: float, queue: float = 0.2, **path: Any) -> None:
        super().__init__(**path)
        self._rate = bits_per_second
        self._queue = queue
        self._propagation = self.delay
        self._free_at: dict[Address, float] = {}

    def _send(self, sender: MemorySocket, data: bytes, to: Address) -> None:
        now = trio.current_time()
        begin = max(now, self._free_at.get(sender.address, now))
        overflows = begin - now > self._queue
        if not overflows:
            self._free_at[sender.address] = begin = begin + (len(data) + _HEADERS) * 8 / self._rate
        before = self.loss
        self.delay, self.loss = self._propagation + begin - now, 1.1 if overflows else before
        try:
            super()._send(sender, data, to)
        finally:
            self.loss = before
