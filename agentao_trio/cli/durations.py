"""Lengths of time as they are typed: 90s, 15m, 2h, 7d; and rates: 2/s, 10/minute."""

from __future__ import annotations

import re

from agentao_trio.cli.running import UsageError

__all__ = ["rate", "seconds", "typed_rate", "typed_seconds"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def typed_seconds(text: str) -> float | None:
    """The seconds of a length of time; None for what is none."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd])", text)
    return float(found[1]) * _UNITS[found[2]] if found is not None else None


def seconds(option: str, text: str) -> float:
    """The value of an option, in seconds. Raises UsageError for what is no length of time."""
    if (found := typed_seconds(text)) is None:
        raise UsageError(f"{option}: {text!r} is no length of time; expected one like 90s, 10m, 12h or 30d")
    return found


def typed_rate(text: str) -> float | None:
    """How often a second a rate is, whose unit may be written out; None for what is none."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)/(s|second|m|minute|h|hour|d|day)", text)
    return float(found[1]) / _UNITS[found[2][0]] if found is not None else None


def rate(option: str, text: str) -> float:
    """The value of an option, in times per second. Raises UsageError for what is no rate."""
    if (found := typed_rate(text)) is None:
        raise UsageError(f"{option}: {text!r} is no rate; expected one like 2/s or 30/minute")
    return found
