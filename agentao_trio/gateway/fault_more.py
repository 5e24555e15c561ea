"""Faults that no check was written for: what gateways get wrong besides. They try the checks out as a whole."""

from __future__ import annotations

__all__: list[str] = []
