"""What many calls came to: counts, rates and percentiles over records, one pass, in bounded memory.

::

    analysis = Analysis()
    for record in history.records():
        analysis.feed(record)
    print(analysis.figures().answer_rate)

The same records in the same order give the same figures, whether all at once or one by one as they happen. Percentiles
come from :class:`Distribution`, which is right within one percent however many values it has seen. Calls count when
they begin, and their durations and quality when they are over. Whether one was answered, how it ended and how long it
lasted is what its :class:`~agentao_trio.summaries.CallSummary` says, here as in a list of calls: one that went on
without us has the end that the gateway tells afterwards, and until then the one that it had for us.
"""

from __future__ import annotations

import copy
import math
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

import attrs

from agentao_trio.causes import q850_name
from agentao_trio.records import Record, RecordKind
from agentao_trio.summaries import ELSEWHERE, CallSummary, merged

__all__ = ["Analysis", "Distribution", "Figures", "Spread", "ToolFigures", "TrunkFigures"]

#: Buckets grow by so much: a value is known within half of it.
_GROWTH = 1.02
#: Values as small as this are one bucket.
_LEAST = 1e-6
#: Finished calls that are remembered, so that what comes late does not count as another call.
_REMEMBERED = 10_000
#: Calls over for us whose end the gateway may still tell. Beyond them the oldest counts as it stands.
_UNTOLD = 1_000
#: How calls end here before the gateway says that they have ended.
_AHEAD = frozenset({"left", "lost", "overrun"})
#: Tools, methods, trunks and error codes told apart; what comes beyond them is one row together.
_MOST_NAMES = 200
_OTHERS = "(others)"
#: How commands fail. One that was abandoned is no failure: its effect was told by an event, ahead of its reply.
_IN_VAIN = frozenset({"refused", "timed_out", "failed"})


@attrs.frozen(kw_only=True)
class Spread:
    """How values are distributed; everything but ``count`` is None where there are none."""

    count: int = 0
    mean: float | None = None
    least: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    most: float | None = None


class Distribution:
    """Values of 0 and more, in buckets of one percent to either side. Adding two of them loses nothing."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._sum = 0.0
        self._least, self._most = math.inf, -math.inf

    def __repr__(self) -> str:
        return f"<Distribution of {self.count} values, median {self.quantile(0.5)}>"

    def add(self, value: float) -> None:
        """One more value; what is not a finite number is left out, and below 0 counts as 0."""
        if not math.isfinite(value):
            return
        value = max(0.0, value)
        self._buckets[_bucket(value)] += 1
        self._sum += value
        self._least, self._most = min(self._least, value), max(self._most, value)

    @property
    def count(self) -> int:
        """How many values."""
        return self._buckets.total()

    def quantile(self, share: float) -> float | None:
        """The value that ``share`` (0 to 1) of all are not above, within one percent; None where there are none."""
        rank = max(1, math.ceil(share * self.count))
        for bucket in sorted(self._buckets):
            rank -= self._buckets[bucket]
            if rank <= 0:
                return min(max(_value(bucket), self._least), self._most)
        return None

    def spread(self) -> Spread:
        """The usual figures."""
        if not self.count:
            return Spread()
        return Spread(
            count=self.count,
            mean=self._sum / self.count,
            least=self._least,
            p50=self.quantile(0.50),
            p90=self.quantile(0.90),
            p95=self.quantile(0.95),
            p99=self.quantile(0.99),
            most=self._most,
        )

    def buckets(self) -> list[tuple[float, int]]:
        """Values and how often they came, in order: for a histogram."""
        return [(_value(bucket), self._buckets[bucket]) for bucket in sorted(self._buckets)]


def _bucket(value: float) -> int:
    return -(2**31) if value <= _LEAST else math.ceil(math.log(value, _GROWTH))


def _value(bucket: int) -> float:
    return 0.0 if bucket == -(2**31) else float(_GROWTH ** (bucket - 0.5))


@attrs.frozen(kw_only=True)
class TrunkFigures:
    """One trunk's calls."""

    calls: int
    answered: int


@attrs.frozen(kw_only=True)
class ToolFigures:
    """One tool, or one command: how often, how often in vain, and how long it took in seconds."""

    count: int
    failed: int
    seconds: Spread


@attrs.frozen(kw_only=True)
class Figures:
    """Everything, at one moment. Times are in seconds unless a name says otherwise."""

    first_at: float | None
    last_at: float | None
    records: int
    calls: int
    inbound: int
    outbound: int
    open: int
    answered: int
    #: Of the calls that are over; None where there are none.
    answer_rate: float | None
    by_status: Mapping[str, int]
    #: By Q.850 cause, with its name.
    by_cause: Mapping[int, tuple[str, int]]
    by_trunk: Mapping[str, TrunkFigures]
    #: Who picked up, as detected.
    by_answerer: Mapping[str, int]
    #: Calls begun, and calls answered, by the hour they began in (Unix seconds of the full hour).
    by_hour: Mapping[int, tuple[int, int]]
    seconds_to_answer: Spread
    seconds_talked: Spread
    mos: Spread
    jitter_ms: Spread
    packet_loss_pct: Spread
    #: End of the caller's speech to the first packet of the reply.
    turn_seconds: Spread
    turns: int
    barge_ins: int
    barge_in_silence_ms: Spread
    underruns: int
    tools: Mapping[str, ToolFigures]
    commands: Mapping[str, ToolFigures]
    #: By source and code.
    errors: Mapping[str, int]
    tokens: int
    packets_missing: int
    reconnects: int

    def spreads(self) -> Mapping[str, Spread]:
        """What varies from call to call and from turn to turn, under the names that people read."""
        return {
            "Time to answer, s": self.seconds_to_answer,
            "Talked, s": self.seconds_talked,
            "MOS (estimate)": self.mos,
            "Jitter, ms": self.jitter_ms,
            "Packet loss, %": self.packet_loss_pct,
            "Reply after speech, s": self.turn_seconds,
            "Silence after barge-in, ms": self.barge_in_silence_ms,
        }


@attrs.define(eq=False)
class _Timed:
    count: int = 0
    failed: int = 0
    seconds: Distribution = attrs.field(factory=Distribution)

    def figures(self) -> ToolFigures:
        return ToolFigures(count=self.count, failed=self.failed, seconds=self.seconds.spread())


@attrs.define(eq=False)
class _Finished:
    """What calls that are over came to."""

    calls: int = 0
    answered: int = 0
    direction: Counter[str] = attrs.field(factory=Counter)
    status: Counter[str] = attrs.field(factory=Counter)
    causes: Counter[int] = attrs.field(factory=Counter)
    answerers: Counter[str] = attrs.field(factory=Counter)
    trunks: dict[str, list[int]] = attrs.field(factory=dict)
    hours: dict[int, list[int]] = attrs.field(factory=dict)
    seconds_to_answer: Distribution = attrs.field(factory=Distribution)
    seconds_talked: Distribution = attrs.field(factory=Distribution)
    mos: Distribution = attrs.field(factory=Distribution)
    jitter_ms: Distribution = attrs.field(factory=Distribution)
    packet_loss_pct: Distribution = attrs.field(factory=Distribution)

    def add(self, call: CallSummary) -> None:
        """One more."""
        answered = call.answered_at is not None
        self.calls += 1
        self.answered += answered
        self.direction[call.direction or "unknown"] += 1
        self.status[call.status] += 1
        if call.q850_cause is not None:
            self.causes[call.q850_cause] += 1
        if call.answered_by:
            self.answerers[call.answered_by] += 1
        _tally(self.trunks, _name(self.trunks, call.trunk_id), answered)
        _tally(self.hours, int(call.began_at or 0.0) // 3600 * 3600, answered)
        for distribution, value in (
            (self.seconds_to_answer, call.seconds_to_answer),
            (self.seconds_talked, call.seconds_talked),
            (self.mos, call.mos),
            (self.jitter_ms, call.jitter_ms),
            (self.packet_loss_pct, call.packet_loss_pct),
        ):
            if value is not None:
                distribution.add(value)


class Analysis:
    """A fold over records."""

    def __init__(self) -> None:
        self._records = 0
        self._first_at: float | None = None
        self._last_at: float | None = None
        self._open: dict[str, CallSummary] = {}
        self._untold: OrderedDict[str, CallSummary] = OrderedDict()
        self._over: OrderedDict[str, None] = OrderedDict()
        self._finished = _Finished()
        self._counts: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._tools: dict[str, _Timed] = {}
        self._commands: dict[str, _Timed] = {}
        self.turn_seconds: Distribution = Distribution()
        self.barge_in_silence_ms: Distribution = Distribution()

    def __repr__(self) -> str:
        return f"<Analysis of {self._records} records, {len(self._open)} calls open>"

    # -- taking in --------------------------------------------------------------------------------------------------

    def feed(self, record: Record) -> None:
        """Take in one more record, in the order they were published."""
        self._records += 1
        self._first_at = record.at if self._first_at is None else self._first_at
        self._last_at = record.at
        if record.call_sid:
            self._call(record)
        data = record.data
        match record.kind:
            case RecordKind.TURN:
                self._turn(data)
            case RecordKind.TOOL if data.get("phase") in ("done", "failed", "cancelled"):
                _time(self._tools, str(data.get("name", "")), data, failed=data["phase"] != "done")
            case RecordKind.COMMAND if data.get("phase") != "sent":
                _time(self._commands, str(data.get("method", "")), data, failed=data.get("phase") in _IN_VAIN)
            case RecordKind.USAGE:
                self._counts["tokens"] += int(data.get("total_tokens") or 0)
            case RecordKind.ERROR:
                source, code = data.get("source", ""), data.get("code") or data.get("type") or ""
                self._errors[_name(self._errors, f"{source} {code}".strip())] += 1
            case RecordKind.GAP:
                self._counts["packets_missing"] += int(data.get("packets") or 0)
            case RecordKind.SESSION if data.get("state") == "reconnecting":
                self._counts["reconnects"] += 1
            case _:
                pass

    def _call(self, record: Record) -> None:
        call_sid, data = record.call_sid, record.data
        if record.kind is RecordKind.CALL and data.get("phase") == "renamed":
            before = self._open.pop(str(data.get("call_sid_before")), None)
            if before is not None and call_sid not in self._over:
                already = self._open.get(call_sid)
                self._open[call_sid] = before if already is None else merged(before, already)
        if call_sid in self._over:
            return
        call = self._open.get(call_sid) or self._untold.get(call_sid)
        if call is None:
            call = self._open[call_sid] = CallSummary()
        call.feed(record)
        if record.kind is RecordKind.CALL and data.get("phase") == "over" and call_sid in self._open:
            self._untold[call_sid] = self._open.pop(call_sid)
            if call.q850_cause is not None or data.get("how") not in _AHEAD:
                self._finish(call_sid)
            elif len(self._untold) > _UNTOLD:
                self._finish(next(iter(self._untold)))
        elif call_sid in self._untold and call.q850_cause is not None:
            self._finish(call_sid)

    def _finish(self, call_sid: str) -> None:
        call = self._untold.pop(call_sid)
        self._over[call_sid] = None
        if len(self._over) > _REMEMBERED:
            self._over.popitem(last=False)
        if call.status != ELSEWHERE:
            self._finished.add(call)

    def _turn(self, data: Mapping[str, Any]) -> None:
        self._counts["turns"] += 1
        self._counts["barge_ins"] += bool(data.get("barge_in"))
        self._counts["underruns"] += int(data.get("underruns") or 0)
        if (seconds := data.get("first_audio_seconds")) is not None:
            self.turn_seconds.add(seconds)
        if (silence := data.get("barge_in_silence_ms")) is not None:
            self.barge_in_silence_ms.add(silence)

    # -- giving out -------------------------------------------------------------------------------------------------

    def _calls_over(self) -> _Finished:
        if not self._untold:
            return self._finished
        finished = copy.deepcopy(self._finished)
        for call in self._untold.values():
            finished.add(call)
        return finished

    @property
    def seconds_to_answer(self) -> Distribution:
        """Of the calls that are over: from the beginning to the answer."""
        return self._calls_over().seconds_to_answer

    @property
    def seconds_talked(self) -> Distribution:
        """Of the calls that are over: from the answer to the end."""
        return self._calls_over().seconds_talked

    @property
    def mos(self) -> Distribution:
        """Of the calls that are over: the estimated mean opinion score."""
        return self._calls_over().mos

    @property
    def jitter_ms(self) -> Distribution:
        """Of the calls that are over: interarrival jitter."""
        return self._calls_over().jitter_ms

    @property
    def packet_loss_pct(self) -> Distribution:
        """Of the calls that are over: what was lost of their audio."""
        return self._calls_over().packet_loss_pct

    def figures(self) -> Figures:
        """The figures by now; calls in progress are in ``calls`` and ``open`` alone."""
        counts, over = self._counts, self._calls_over()
        directions = Counter(call.direction for call in self._open.values())
        return Figures(
            first_at=self._first_at,
            last_at=self._last_at,
            records=self._records,
            calls=over.calls + len(self._open),
            inbound=over.direction["inbound"] + directions["inbound"],
            outbound=over.direction["outbound"] + directions["outbound"],
            open=len(self._open),
            answered=over.answered,
            answer_rate=over.answered / over.calls if over.calls else None,
            by_status=dict(over.status.most_common()),
            by_cause={cause: (q850_name(cause), count) for cause, count in over.causes.most_common()},
            by_trunk={
                trunk: TrunkFigures(calls=calls, answered=answered)
                for trunk, (calls, answered) in sorted(over.trunks.items())
            },
            by_answerer=dict(over.answerers.most_common()),
            by_hour={hour: (calls, answered) for hour, (calls, answered) in sorted(over.hours.items())},
            seconds_to_answer=over.seconds_to_answer.spread(),
            seconds_talked=over.seconds_talked.spread(),
            mos=over.mos.spread(),
            jitter_ms=over.jitter_ms.spread(),
            packet_loss_pct=over.packet_loss_pct.spread(),
            turn_seconds=self.turn_seconds.spread(),
            turns=counts["turns"],
            barge_ins=counts["barge_ins"],
            barge_in_silence_ms=self.barge_in_silence_ms.spread(),
            underruns=counts["underruns"],
            tools={name: timed.figures() for name, timed in sorted(self._tools.items())},
            commands={name: timed.figures() for name, timed in sorted(self._commands.items())},
            errors=dict(self._errors.most_common()),
            tokens=counts["tokens"],
            packets_missing=counts["packets_missing"],
            reconnects=counts["reconnects"],
        )


def _name(known: Mapping[str, Any], name: str) -> str:
    """The name, or the one for all others where there are too many."""
    return name if name in known or len(known) < _MOST_NAMES else _OTHERS


def _tally(table: dict[Any, list[int]], key: Any, answered: bool) -> None:
    row = table.setdefault(key, [0, 0])
    row[0] += 1
    row[1] += answered


def _time(table: dict[str, _Timed], name: str, data: Mapping[str, Any], *, failed: bool) -> None:
    timed = table.setdefault(_name(table, name), _Timed())
    timed.count += 1
    timed.failed += failed
    if (seconds := data.get("seconds")) is not None:
        timed.seconds.add(seconds)
