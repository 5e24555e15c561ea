"""Q.850 cause values and their names."""

from __future__ import annotations

import pytest

from agentao_trio.causes import Q850_NAMES, q850_name


@pytest.mark.parametrize(
    ("cause", "name"),
    [
        (16, "Normal call clearing"),
        (17, "User busy"),
        (18, "No user responding"),
        (19, "No answer from user (user alerted)"),
        (127, "Interworking, unspecified"),
    ],
)
def test_assigned_causes_have_the_name_of_the_standard(cause: int, name: str) -> None:
    assert q850_name(cause) == name


def test_a_cause_that_was_not_set_or_not_assigned_says_so() -> None:
    assert q850_name(0) == "No cause given"
    assert q850_name(126) == "Unassigned cause 126"
    assert q850_name(-(2**31)) == "Unassigned cause -2147483648"


def test_every_name_is_in_the_seven_bits_of_a_cause_value_and_used_once() -> None:
    assert all(1 <= cause <= 127 for cause in Q850_NAMES)
    assert len(set(Q850_NAMES.values())) == len(Q850_NAMES)
