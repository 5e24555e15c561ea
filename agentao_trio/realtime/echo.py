"""Whether the server took the configuration it was given."""

from __future__ import annotations

from typing import Any

from agentao_trio.errors import RealtimeError
from agentao_trio.realtime.protocol import UNSET, AudioFormat, SessionConfig, SessionUpdated

__all__ = ["taken"]

#: What an echo has to repeat for a session to be what was asked for: the wrong one of these is noise, or silence.
_ECHOED = ("input_format", "output_format", "output_modalities")


def taken(wanted: SessionConfig, answer: SessionUpdated) -> SessionConfig:
    """The configuration as the server has it, and ``wanted`` where it does not say.

    Raises :class:`RealtimeError` (``echoed_otherwise``) where it says something else of what matters.
    """
    told = answer.session.config()
    for name in _ECHOED:
        asked, echoed = getattr(wanted, name), getattr(told, name)
        if UNSET not in (asked, echoed) and asked != echoed:
            raise RealtimeError(
                f"the model took {name} {_plainly(echoed)} in place of {_plainly(asked)}",
                type="invalid_request_error",
                code="echoed_otherwise",
                param=name,
            )
    return wanted.merged(told)


def _plainly(value: Any) -> str:
    return str(value.value) if isinstance(value, AudioFormat) else str(value)
