"""One line of the result."""

from __future__ import annotations

from collections.abc import Mapping

import attrs


@attrs.frozen(kw_only=True)
class Row:
    """What was measured, for people (``text``) and for programs (``figures``)."""

    name: str
    text: str
    figures: Mapping[str, float]
