"""The client's rule: what a dashboard makes of a snapshot and of the events after it. ``page/fold.js`` is its twin.

A snapshot replaces what is known; only a call of which more is known already stays as it is. An update carries the
number of its call's last change and a merge patch (RFC 7396): numbers known already are dropped, the next one is
applied, and where one is missing the client asks for a new snapshot. Numbers of another epoch, which is another
server's, clear everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

__all__ = ["Fold", "Verdict", "merge_patch"]


class Verdict(StrEnum):
    """What became of an update."""

    APPLIED = "applied"
    #: Known already.
    OLD = "old"
    #: One before it is missing: subscribe again.
    GAP = "gap"


def merge_patch(target: Any, patch: Any) -> Any:
    """``target`` with ``patch`` merged into it (RFC 7396); neither is changed, and what stays the same is shared."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


class Fold:
    """The calls as a client knows them."""

    def __init__(self) -> None:
        self.epoch: str = ""
        #: Call objects by sid.
        self.calls: dict[str, dict[str, Any]] = {}

    def __repr__(self) -> str:
        return f"<Fold of epoch {self.epoch or '(none)'}, {len(self.calls)} calls>"

    def snapshot(self, calls: Sequence[Mapping[str, Any]], meta: Mapping[str, Any]) -> bool:
        """``active_calls``: the state of all calls. Returns whether it is another server's than before."""
        fresh = self._enter(meta["epoch"])
        for gone in self.calls.keys() - {call["callSid"] for call in calls}:
            del self.calls[gone]
        for call in calls:
            self.call(call["callSid"], call)
        return fresh

    def call(self, call_sid: str, call: Mapping[str, Any]) -> bool:
        """``call_data``: the state of one call. Returns whether it was news; an older state than the known is none."""
        known = self.calls.get(call_sid)
        if known is not None and known["seq"] >= call["seq"]:
            return False
        self.calls[call_sid] = dict(call)
        return True

    def update(self, envelope: Mapping[str, Any]) -> Verdict:
        """``call_update``: one change of one call."""
        call_sid, seq = envelope["callSid"], envelope["seq"]
        self._enter(envelope["eventId"].partition(":")[0])
        known = self.calls.get(call_sid, {})
        if seq <= known.get("seq", 0):
            return Verdict.OLD
        if seq != known.get("seq", 0) + 1:
            return Verdict.GAP
        self.calls[call_sid] = merge_patch(known, envelope["patch"])
        return Verdict.APPLIED

    def _enter(self, epoch: str) -> bool:
        if epoch == self.epoch:
            return False
        self.epoch = epoch
        self.calls.clear()
        return True
