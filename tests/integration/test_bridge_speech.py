"""A model's audio on a call with the embedded gateway, in virtual time: its pace, its bytes, and its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock

from agentao_trio import ActiveCall, Codec, open_session
from agentao_trio.realtime.playout import AudioPart, Cut, ModelAudio, Played, Stretch
from agentao_trio.realtime.speech import PACKETS_AHEAD, Speaker
from agentao_trio.testing import SimulatedGateway
from tests.support.bridged import NUMBER, Ear, said_by

ITEM = AudioPart("item_1")
PER_MS = 8


@attrs.define(eq=False)
class Talk:
    call: ActiveCall
    ear: Ear
    audio: ModelAudio
    speaker: Speaker
    played: list[Played] = attrs.Factory(list)


@asynccontextmanager
async def talking(gateway: SimulatedGateway, **options: float) -> AsyncIterator[Talk]:
    ear = Ear()
    gateway.server.model.handsets[NUMBER] = ear
    async with (
        open_session(gateway.endpoint, **gateway.options()) as session,
        await session.originate(NUMBER, trunk_id="main", codec=Codec.PCMU) as call,
        trio.open_nursery() as nursery,
    ):
        await call.wait_answered()
        audio = ModelAudio(Codec.PCMU, **options)
        played: list[Played] = []

        def sent(packet: Stretch, at: float, over: list[Played]) -> None:
            played.extend(over)

        talk = Talk(call, ear, audio, Speaker(call, audio, sent=sent), played)
        nursery.start_soon(talk.speaker.run)
        yield talk
        nursery.cancel_scope.cancel()


def say(talk: Talk, data: bytes, *, done: bool = True) -> None:
    talk.audio.receive(ITEM, "response_1", data, len(data) / PER_MS)
    if done:
        talk.audio.finish(ITEM)
    talk.speaker.wake()


async def test_a_burst_is_said_at_the_pace_of_the_call(gateway: SimulatedGateway) -> None:
    async with talking(gateway) as talk:
        said = said_by(2010)
        say(talk, said)
        ahead = 0
        began = trio.current_time()
        while not talk.speaker.is_silent:
            ahead = max(ahead, talk.call.statistics().packets_queued)
            await trio.sleep(0.005)
        assert trio.current_time() - began == pytest.approx(2.02, abs=0.03)
        assert ahead <= PACKETS_AHEAD
        await talk.call.wait_played()
        assert talk.ear.sound[: len(said)] == said, "to the bit"
        assert len(talk.ear.heard) == 101
        assert talk.ear.longest_gap < 0.03
        assert [played.kept_ms for played in talk.played] == [2010]
        assert talk.speaker.ran_dry == 0


@pytest.mark.parametrize("moment", [0.0, 0.1003, 0.51, 0.995])
async def test_an_interruption_is_silence_on_the_wire(gateway: SimulatedGateway, moment: float) -> None:
    async with talking(gateway) as talk:
        say(talk, said_by(3000))
        await trio.sleep(moment)
        interrupted_at = trio.current_time()
        [cut] = talk.speaker.interrupt(interrupted_at)
        sent = talk.call.statistics().packets_sent
        await trio.sleep(1)
        assert talk.call.statistics().packets_sent == sent, "no packet goes out after it"
        last = max((at for at, _ in talk.ear.heard), default=interrupted_at)
        assert last + 0.02 - interrupted_at <= 0.04
        assert cut == Cut(
            part=ITEM, response_id="response_1", heard_ms=max(0, sent * 20 - 100), sent_ms=sent * 20, received_ms=3000
        )


async def test_an_interruption_takes_back_the_packet_that_is_being_handed_over(gateway: SimulatedGateway) -> None:
    """Between every two steps of the speaking task."""
    async with talking(gateway) as talk:
        for step in range(8):
            talk.audio.receive(AudioPart(f"item_{step}"), f"response_{step}", said_by(200), 200)
            talk.speaker.wake()
            for _ in range(step):
                await trio.lowlevel.checkpoint()
            talk.speaker.interrupt(trio.current_time())
            await trio.sleep(0.1)
            assert talk.ear.sound == b""
            assert talk.call.statistics().packets_queued == 0


class Hasty:
    """A call whose clock sends what is handed over before the task that did so goes on."""

    codec = Codec.PCMU

    async def send_audio(self, data: bytes) -> None:
        await trio.sleep_forever()

    def clear_send_audio_buffer(self) -> int:
        return 0


async def test_a_packet_that_went_out_while_it_was_handed_over_counts_as_sent(autojump_clock: MockClock) -> None:
    audio = ModelAudio(Codec.PCMU)
    speaker = Speaker(Hasty(), audio, sent=lambda stretch, at, played: None)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        audio.receive(ITEM, "response_1", said_by(1000), 1000)
        nursery.start_soon(speaker.run)
        await trio.testing.wait_all_tasks_blocked()
        [cut] = speaker.interrupt(trio.current_time())
        assert (cut.sent_ms, cut.heard_ms) == (20, 0)
        assert trio.current_time() - 0.02 <= speaker.last_sent_at <= trio.current_time()
        nursery.cancel_scope.cancel()


async def test_it_goes_on_after_an_interruption(gateway: SimulatedGateway) -> None:
    async with talking(gateway) as talk:
        say(talk, said_by(3000))
        await trio.sleep(0.5)
        talk.speaker.interrupt(trio.current_time())
        heard_before = len(talk.ear.heard)
        again = AudioPart("item_2")
        assert not talk.audio.receive(ITEM, "response_1", said_by(100), 100), "late"
        talk.audio.receive(again, "response_2", said_by(300, 7), 300)
        talk.audio.finish(again)
        talk.speaker.wake()
        await talk.speaker.wait_silent()
        await talk.call.wait_played()
        assert b"".join(payload for _, payload in talk.ear.heard[heard_before:]).endswith(said_by(300, 7))


async def test_a_slow_model_gives_silence_and_no_gap(gateway: SimulatedGateway) -> None:
    async with talking(gateway, prebuffer_ms=60) as talk:
        said = said_by(400)
        for start in range(0, len(said), 800):  # 100 ms every 140 ms
            say(talk, said[start : start + 800], done=start + 800 >= len(said))
            await trio.sleep(0.14)
        await talk.speaker.wait_silent()
        await talk.call.wait_played()
        assert talk.ear.longest_gap < 0.03
        statistics = talk.audio.statistics()
        assert statistics.underruns == 3
        assert talk.ear.sound.replace(Codec.PCMU.silence, b"") == said
        assert len(talk.ear.sound) == len(said) + statistics.silence_ms * PER_MS


async def test_a_stalled_model_is_waited_for_and_begins_anew(gateway: SimulatedGateway) -> None:
    async with talking(gateway, prebuffer_ms=60) as talk:
        say(talk, said_by(100), done=False)
        await trio.sleep(1)
        assert talk.audio.statistics().silence_ms == 200
        say(talk, said_by(20), done=False)
        await trio.sleep(0.5)
        assert talk.audio.statistics().sent_ms == 100, "not enough to begin with"
        say(talk, said_by(100))
        await talk.speaker.wait_silent()
        assert talk.audio.statistics().sent_ms == 220


async def test_the_end_of_the_call_ends_the_speaking(gateway: SimulatedGateway) -> None:
    async with talking(gateway) as talk:
        say(talk, said_by(3000))
        await trio.sleep(0.5)
        await talk.call.hangup()
        talk.speaker.interrupt(trio.current_time())
        assert talk.speaker.is_silent
