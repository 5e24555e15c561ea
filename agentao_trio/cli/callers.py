"""People who call the embedded gateway from outside: one at a time, or at a pace."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import attrs
import trio

from agentao_trio.cli.durations import typed_rate
from agentao_trio.cli.running import UsageError
from agentao_trio.gateway import Gateway, find_caller
from agentao_trio.legible import quoted

__all__ = ["CALLERS", "Callers", "Pace", "check_caller", "parse_pace"]

#: Who calls in turn unless told otherwise: each shows an agent something else.
CALLERS = ("echo", "recording", "tone", "hold", "hangup", "loss")

#: Calls a second. Where nobody answers, each rings for half a minute.
FASTEST = 100

NUMBER = "+15550109999"


@attrs.frozen
class Pace:
    """A call every ``interval`` seconds, as it was typed."""

    typed: str
    interval: float

    def __str__(self) -> str:
        return self.typed


def parse_pace(text: str) -> Pace:
    """What ``10/minute`` means. Raises :class:`UsageError`."""
    per_second = typed_rate(text)
    if not per_second:
        raise UsageError(f"{quoted(text)} is no pace; expected one like 10/minute, 2/second or 1/h")
    if per_second > FASTEST:
        raise UsageError(f"{text} is too fast; at most {FASTEST}/second")
    return Pace(text, 1 / per_second)


def check_caller(name: str) -> str:
    """``name``, if somebody of that name, number or SIP URI may call in. Raises :class:`UsageError`."""
    if find_caller(name) is None:
        raise UsageError(f"{quoted(name)} is no far end; for example {CALLERS[0]} or +15550100001")
    return name


class Callers:
    """Places inbound calls on ``trunk``, from ``far_ends`` in turn."""

    def __init__(self, gateway: Gateway, *, trunk: str, far_ends: Sequence[str], pace: Pace | None) -> None:
        self.trunk = trunk
        self._gateway = gateway
        self._far_ends = far_ends
        self._turns = itertools.cycle(far_ends)
        self._pace = pace
        self._waiting = trio.CancelScope()

    def __str__(self) -> str:
        if self._pace is None:
            return "inbound calls are off"
        return f"inbound calls on trunk {self.trunk}, {self._pace}, from {', '.join(self._far_ends)} in turn"

    def change_pace(self, pace: Pace | None) -> None:
        """From now on at this pace, beginning at once; None is no calls."""
        self._pace = pace
        self._waiting.cancel()

    def place(self, trunk: str = "", far_end: str = "") -> str:
        """Have somebody call in, and say what came of it. Raises :class:`UsageError` for a far end that is none."""
        trunk, far_end = trunk or self.trunk, far_end or next(self._turns)
        check_caller(far_end)
        number = far_end if far_end.startswith("+") else NUMBER
        call_sid = self._gateway.place_inbound_call(trunk_id=trunk, call_from=number, far_end=far_end)
        if call_sid is None:
            return f"{far_end} called trunk {trunk}, which rejects calls"
        return f"{far_end} calls trunk {trunk}: {call_sid}"

    async def run(self) -> None:
        """Place calls at the pace until cancelled."""
        while True:
            with trio.CancelScope() as self._waiting:
                await self._keep(self._pace)

    async def _keep(self, pace: Pace | None) -> None:
        if pace is None:
            await trio.sleep_forever()
        due = trio.current_time()
        while True:
            await trio.sleep_until(due)
            self.place()
            # The pace is kept on the average, but what was missed while the machine slept is not made up for.
            due = max(due + pace.interval, trio.current_time() - pace.interval)
