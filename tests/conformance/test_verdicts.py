"""How a programme ends, and what is said of its rule then: nothing that went wrong is taken for a gateway's fault."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio

from agentao_trio.conformance.kit import Kit
from agentao_trio.conformance.programmes import PROGRAMMES, Inconclusive, Unsupported
from agentao_trio.conformance.runner import Options, Result, Verdict, chosen
from tests.conformance.judging import judged

CHECK = "FRM-01"


async def unsupported(kit: Kit) -> None:
    raise Unsupported("the profile has no second tenant")


async def inconclusive(kit: Kit) -> None:
    raise Inconclusive("the far end was still ringing")


async def mistaken(kit: Kit) -> None:
    raise ZeroDivisionError("the kit cannot count")


async def endless(kit: Kit) -> None:
    await trio.sleep_forever()


def verdict(monkeypatch: pytest.MonkeyPatch, **programme: Any) -> Result:
    """What is said where the programme is another one."""
    monkeypatch.setitem(PROGRAMMES, CHECK, attrs.evolve(PROGRAMMES[CHECK], **programme))
    [result] = judged(CHECK).results
    return result


@pytest.mark.parametrize(
    ("programme", "said", "reason"),
    [
        (unsupported, Verdict.UNSUPPORTED, "the profile has no second tenant"),
        (inconclusive, Verdict.INCONCLUSIVE, "the far end was still ringing"),
        (mistaken, Verdict.ERROR, "ZeroDivisionError: the kit cannot count"),
        (endless, Verdict.INCONCLUSIVE, "the programme did not come to its end in time"),
    ],
)
def test_a_programme_that_fails_says_nothing_against_the_gateway(
    programme: Callable[[Kit], Awaitable[None]], said: Verdict, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = verdict(monkeypatch, run=programme)
    assert (result.verdict, result.reason) == (said, reason)


def test_what_the_profile_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    result = verdict(monkeypatch, roles=frozenset({"astronaut"}))
    assert (result.verdict, result.reason) == (
        Verdict.UNSUPPORTED,
        "the profile names no destination for astronaut",
    )
    result = verdict(monkeypatch, roles=frozenset(), capabilities=frozenset({"magic"}))
    assert (result.verdict, result.reason) == (Verdict.UNSUPPORTED, "the profile does not claim magic")


def test_a_check_that_nobody_knows_is_named() -> None:
    with pytest.raises(ValueError, match="there is no check or section NOT-01"):
        chosen(Options(only=frozenset({"NOT-01"})))
