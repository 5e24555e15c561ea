"""What may be said when a session is opened: refused by name before anything begins."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["check_options"]

_CHOICES = {"rpc_length": ("exclusive", "inclusive"), "handler_errors": ("log", "raise")}


def check_options(*, trunks: object, choices: Mapping[str, object], seconds: Mapping[str, object]) -> None:
    """Raise :class:`ValueError` for an option of :func:`~agentao_trio.session.open_session` that means nothing."""
    if isinstance(trunks, str):
        raise ValueError(f"trunks is {trunks!r}; expected a collection of names, such as [{trunks!r}]")
    for name, value in choices.items():
        if value not in _CHOICES[name]:
            raise ValueError(f"{name} is {value!r}; expected {' or '.join(map(repr, _CHOICES[name]))}")
    for name, value in seconds.items():
        if not isinstance(value, int | float) or not value > 0:  # nor is anything more than nan
            raise ValueError(f"{name} is {value!r}; expected a number of seconds, more than 0")
