"""What the public strategies draw is what they say."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentao_trio import messages
from agentao_trio.callstate import CallOrder, OrderState, Verdict
from agentao_trio.conformance import strategies
from agentao_trio.errors import RemoteProtocolError
from agentao_trio.wire import FrameDecoder, encode_frame


def verdicts(order: list[int]) -> tuple[set[Verdict], OrderState]:
    call = CallOrder()
    return {call.feed(event_type, number) for number, event_type in enumerate(order)}, call.state


@given(strategies.legal_event_orders())
def test_a_legal_order_is_in_order_and_ends(order: list[int]) -> None:
    assert verdicts(order) == ({Verdict.IN_ORDER}, OrderState.ENDED)


@given(strategies.illegal_event_orders())
def test_an_illegal_order_is_noticed_or_does_not_end(order: list[int]) -> None:
    assert verdicts(order) != ({Verdict.IN_ORDER}, OrderState.ENDED)


@given(strategies.chunked(strategies.frames().map(lambda frame: encode_frame(*frame))))
def test_a_stream_in_chunks_is_still_the_stream(chunks: list[bytes]) -> None:
    assert len(FrameDecoder().feed(b"".join(chunks))) == 1


@given(strategies.broken_envelopes(), st.sampled_from(list(messages.MESSAGES.values())))
def test_a_broken_envelope_is_read_or_refused(data: bytes, cls: type[messages.Message]) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert isinstance(messages.decode(cls, data), cls)


@given(strategies.audio_frames("a call"))
def test_audio_frames_are_of_the_call(data: bytes) -> None:
    (frame,) = FrameDecoder().feed(data)
    assert messages.decode(messages.AudioFrame, frame.body).call_sid == "a call"


@pytest.mark.parametrize("strategy", [strategies.command_programmes(), strategies.fault_schedules()])
def test_programmes_fit_a_replay_file(strategy: st.SearchStrategy[Any]) -> None:
    @given(strategy)
    def survives(drawn: Any) -> None:
        assert json.loads(json.dumps(drawn)) == drawn

    survives()


@given(strategies.fault_schedules(seconds=2.0))
def test_a_schedule_is_in_order_and_within_its_time(schedule: list[dict[str, Any]]) -> None:
    moments = [step["at"] for step in schedule]
    assert moments == sorted(moments)
    assert all(0 <= moment <= 2.0 for moment in moments)
