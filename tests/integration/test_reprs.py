"""What a debugger shows of the objects that live: who each is, its state, its counts; whatever has become of it."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
from collections.abc import Awaitable, Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
import trustme

from agentao_trio import ActiveCall, AgenTaoClient, Codec, Watchdog, open_session
from agentao_trio.analytics import Analysis, Distribution
from agentao_trio.audio import JitterEstimator, Packetizer, SequenceTracker
from agentao_trio.broadcast import Broadcast
from agentao_trio.callstate import CallOrder
from agentao_trio.campaign import Campaign
from agentao_trio.campaign_numbers import CampaignRow
from agentao_trio.campaign_plan import CampaignPlan, Pace, RetryPolicy
from agentao_trio.conformance.kit import Kit, Link, Wire
from agentao_trio.conformance.limits import Limits
from agentao_trio.conformance.profile import Profile
from agentao_trio.conformance.requirements import Judgement
from agentao_trio.conformance.trace import Trace
from agentao_trio.convert import FrameConverter, Resampler, SpeechConverter
from agentao_trio.credentials import TokenVerifier
from agentao_trio.detect import AnsweringMachineDetector, DtmfDetector, ToneDetector, VoiceActivityDetector
from agentao_trio.envelope import INT32, Enumeration, Field, Layout, Vector
from agentao_trio.events import Ingest
from agentao_trio.fleet import Fleet
from agentao_trio.fleet_link import RedisLink
from agentao_trio.fleet_numbers import Numbers
from agentao_trio.history import open_history
from agentao_trio.hub import Hub
from agentao_trio.live import serve as serve_live
from agentao_trio.live.fold import Fold
from agentao_trio.live.redis import FanOut
from agentao_trio.media import Downlink
from agentao_trio.messages import EventType, SuperviseMode
from agentao_trio.metrics import SessionCollector
from agentao_trio.pacing import Lateness
from agentao_trio.presenters import Authentication
from agentao_trio.realtime.bridge import bridge
from agentao_trio.realtime.connection import memory_transports
from agentao_trio.realtime.conversation import Conversation
from agentao_trio.realtime.journal import Journal
from agentao_trio.realtime.playout import ModelAudio
from agentao_trio.realtime.protocol import SessionConfig
from agentao_trio.realtime.script import Script
from agentao_trio.realtime.session import open_realtime
from agentao_trio.realtime.simulator import simulated
from agentao_trio.replay import Together
from agentao_trio.store import open_store
from agentao_trio.supervise import Supervision
from agentao_trio.testing import open_simulated_gateway
from agentao_trio.transport import ClientTLS, ServerTLS, open_connection, open_listener, open_udp_socket
from agentao_trio.wav import WavFile
from agentao_trio.wire import FrameDecoder
from tests.support.accounts import account
from tests.support.sounds import sine

PAGES = Path(__file__).parents[2] / "docs" / "reference" / "api"

#: Those that a debugger need not tell apart, and why.
WITHOUT = {
    "BucketAction": "a list of names",
    "JsonLines": "holds nothing",
}


def live_classes() -> Iterator[type]:
    """The classes of the documented modules that can be made, but for values, which show their fields."""
    modules = {name for page in PAGES.glob("*.md") for name in re.findall(r"automodule:: (\S+)", page.read_text())}
    assert len(modules) > 50
    for name in sorted(modules):
        module = importlib.import_module(name)
        for exported in getattr(module, "__all__", ()):
            thing = getattr(module, exported)
            if inspect.isclass(thing) and not inspect.isabstract(thing) and not getattr(thing, "_is_protocol", False):
                yield thing


def test_no_public_object_is_only_an_address_in_memory() -> None:
    nameless = {each.__name__ for each in live_classes() if each.__repr__ is object.__repr__}
    assert nameless == WITHOUT.keys()


# -- those that are made by hand ------------------------------------------------------------------------------------


def fed(thing: Any, *values: Any) -> Any:
    for value in values:
        thing.feed(*value) if isinstance(value, tuple) else thing.feed(value)
    return thing


def distribution(*values: float) -> Distribution:
    made = Distribution()
    for value in values:
        made.add(value)
    return made


def judgement(*, open_because: str = "") -> Judgement:
    made = Judgement()
    made.expect(False, expected="a thing", seen="another")
    if open_because:
        made.leave_open(open_because)
    return made


@attrs.frozen
class Counter:
    number: int


LAYOUT = Layout(Counter, [Field("number", INT32, 0)], version=3, compat=0)


def closed_wav(path: Path) -> WavFile:
    made = WavFile(path, rate=8000, channels=2)
    made.append(bytes(32_000))
    made.close()
    return made


BY_HAND: list[tuple[Callable[[], object], str]] = [
    (Analysis, "<Analysis of 0 records, 0 calls open>"),
    (Distribution, "<Distribution of 0 values, median None>"),
    (lambda: distribution(0), "<Distribution of 1 values, median 0.0>"),
    (lambda: fed(CallOrder(), (EventType.CHANNEL_CREATE, 1)), "<CallOrder CREATED, 1 events>"),
    (lambda: Pace(5), "<Pace of 5 calls per second>"),
    (lambda: Wire(None, None), "<Wire, loss 0, duplication 0, reordering 0>"),  # type: ignore[arg-type]
    (judgement, "<Judgement judged 1 times, 1 findings>"),
    (lambda: judgement(open_because="no call"), "<Judgement left open: no call, 1 findings>"),
    (lambda: Trace(()), "<Trace of 0 observations>"),
    (lambda: Resampler(8000, 8000), "<Resampler from 8000 to 8000 Hz>"),
    (lambda: FrameConverter(None, fill_gaps=True), "<FrameConverter to the same format, gaps filled>"),
    (lambda: SpeechConverter(Codec.PCMU), "<SpeechConverter to PCMU>"),
    (lambda: TokenVerifier([account().trusted_key()]), "<TokenVerifier with the keys of 1 tenants>"),
    (DtmfDetector, "<DtmfDetector at 8000 Hz, no key down>"),
    (ToneDetector, "<ToneDetector at 8000 Hz, nothing heard>"),
    (lambda: fed(ToneDetector(), sine(1_000, seconds=0.5)), "<ToneDetector at 8000 Hz, 1000 Hz heard>"),
    (VoiceActivityDetector, "<VoiceActivityDetector at 8000 Hz, no speech>"),
    (AnsweringMachineDetector, "<AnsweringMachineDetector at 8000 Hz, undecided>"),
    (lambda: Enumeration(EventType), f"<Enumeration of {len(EventType)} names as int32>"),
    (lambda: LAYOUT, "<Layout of Counter, 1 fields, version 3>"),
    (lambda: Vector(LAYOUT), "<Vector, list of Counter>"),
    (Ingest, "<Ingest, 0 events, 0 calls open, 0 finished>"),
    (Conversation, "<Conversation of 0 items, 0 responses in progress>"),
    (lambda: Journal(clock=lambda: 0.0), "<Journal, 0 events received, 0 sent, 0 entries held>"),
    (lambda: ModelAudio(Codec.PCMA), "<ModelAudio in PCMA, 0 ms waiting, silent>"),
    (Together, "<Together, 0 records, 0 calls held>"),
    (Fold, "<Fold of epoch (none), 0 calls>"),
    (lambda: Authentication(None, "none"), "<Authentication of tenant (none), nothing to present>"),
    (lambda: Packetizer(Codec.PCMU), "<Packetizer of PCMU, 160 bytes each, 0 waiting>"),
    (lambda: fed(SequenceTracker(), (1,), (3, True)), "<SequenceTracker, 2 received, 1 lost, ended>"),
    (JitterEstimator, "<JitterEstimator at 0.000 ms>"),
    (lambda: fed(FrameDecoder(), b"abc"), "<FrameDecoder at byte 0, 3 bytes waiting, 0 short frames>"),
    (Broadcast, "<Broadcast open, 0 readers, 0 dropped>"),
    (lambda: Lateness(1), "<Lateness of 0 releases, median 0 s>"),
    (Downlink, "<Downlink in no codec yet, 0 packets, 0 lost>"),
    (lambda: CampaignPlan((), RetryPolicy()), "<CampaignPlan, 0 fresh, 0 calling, 0 waiting, 0 finished>"),
]


@pytest.mark.parametrize(("make", "shown"), BY_HAND, ids=[shown for _, shown in BY_HAND])
def test_it_says_who_it_is(make: Callable[[], object], shown: str) -> None:
    assert repr(make()) == shown


def test_a_file_that_is_closed_still_says_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    assert repr(closed_wav(path)) == f"<WavFile {path}, 8000 Hz, 2 channels, 1.0 s>"


# -- those that live in a program -----------------------------------------------------------------------------------

NUMBER = "+15550107777"
SECRET = "correct-horse"


class Scene:
    """Objects, what they showed at one moment, and what they were and are to show; an asterisk is anything."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, str, str, str]] = []

    def see(self, thing: object, now: str, later: str) -> None:
        self.seen.append((thing, repr(thing), now, later))


async def telephone(scene: Scene, directory: Path) -> None:
    """A call with all that may hang on it, and those who call."""
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        gateway = await enter(open_simulated_gateway())
        caller = gateway.pick_up(NUMBER)
        store = await enter(open_store(directory / "history.db"))
        session = await enter(open_session(gateway.endpoint, **gateway.options(), client_id="worker"))
        watchdog = stack.enter_context(Watchdog(30))
        store.attach(session.hub)
        call = await enter(await session.originate(NUMBER, trunk_id="main"))
        await call.wait_answered()
        await store.flush()  # while nothing is played yet: this takes a disk's time, and virtual time flies
        history = stack.enter_context(open_history(directory / "history.db"))
        recording = await enter(call.record(directory / "call.wav"))
        playout = await enter(call.play(bytes(80_000)))
        found = call.detect(DtmfDetector())
        await trio.sleep(1)

        sid = call.call_sid
        server = "<Gateway quic://gateway.test:9090, {} connections, {} calls>"
        network = "<MemoryNetwork of {} sockets, * datagrams sent, 0 lost>"
        scene.see(session, "<Session worker connected, 1 calls>", "<Session worker closed, 0 calls>")
        scene.see(session.hub, "<Hub, * records published, 1 readers>", "<Hub, * records published, 0 readers>")
        scene.see(call, f"<ActiveCall {sid} * → {NUMBER} ANSWERED>", f"<ActiveCall {sid} * → {NUMBER} DISCONNECTED>")
        wav = f"<Recording RE* to {directory}/call.wav, {{}}, *.* s, 0 packets missing>"
        scene.see(recording, wav.format("going on"), wav.format("over"))
        plays = "<Playout of a bytes, {}, ?.* s sent>"
        scene.see(playout, plays.format("not over"), plays.format("interrupted"))
        finds = "<Detections by DtmfDetector, 0 waiting, * frames dropped>"
        scene.see(found, finds, finds)
        scene.see(watchdog, "<Watchdog for 30 s, running, 0 *>", "<Watchdog for 30 s, not running, 0 *>")
        wrote = f"<Store {directory}/history.db, {{}}, * records written, {{}} waiting, 0 dropped>"
        scene.see(store, wrote.format("open", "*"), wrote.format("closing", "0"))
        scene.see(history, f"<History {directory}/history.db>", f"<History {directory}/history.db>")
        answers = f"<ScriptedCaller {NUMBER}, call {sid}, {{}}>"
        scene.see(caller, answers.format("answered"), answers.format("over with cause 16"))
        scene.see(gateway.server, server.format(1, 1), server.format(0, 0))
        model = "<GatewayModel, {} calls, {} subscriptions>"
        scene.see(gateway.server.model, model.format(1, 1), model.format(0, "*"))
        scene.see(gateway.network, network.format(2), network.format("*"))
        whole = "<SimulatedGateway of {} on {}>"
        scene.see(
            gateway,
            whole.format(server.format(1, 1), network.format(2)),
            whole.format(server.format(0, 0), network.format("*")),
        )
        socket = gateway.network.socket(("a.test", 1))
        stack.callback(socket.close)
        place = "<MemorySocket a.test:1, {}, 0 datagrams arriving>"
        scene.see(socket, place.format("open"), place.format("closed"))
        figures = "<SessionCollector of worker>"
        scene.see(SessionCollector(session), figures, figures)

        seat = Supervision(session, "theirs", SuperviseMode.BARGE, call._uplink)
        seated = "<Supervision of theirs, <SuperviseMode.BARGE: 3>, {}, 0 packets heard>"
        scene.see(seat, seated.format("open"), seated.format("over"))
        stack.callback(seat._end)


async def media(scene: Scene, directory: Path) -> None:
    """What a call is made of."""
    async with open_simulated_gateway() as gateway:
        gateway.pick_up(NUMBER)
        async with (
            open_session(gateway.endpoint, **gateway.options()) as session,
            await session.originate(NUMBER, trunk_id="main") as call,
        ):
            await call.wait_answered()
            mark = call.mark("greeting")
            frames, payloads = call.audio(), call.audio_stream()
            await trio.sleep(0.5)
            of = "<PacketClock, {} members, * ticks, 0 slots skipped>"
            scene.see(session.clock, of.format("*"), of.format(0))
            of = "<AudioReceiver of <Subscription {}, * items waiting, 0 dropped>>"
            scene.see(frames, of.format("open"), of.format("ended"))
            scene.see(
                payloads, f"<PayloadReceiver of {of.format('open')}>", f"<PayloadReceiver of {of.format('ended')}>"
            )
            scene.see(mark, "<Mark 'greeting', passed>", "<Mark 'greeting', passed>")
            of = f"<Uplink of {call.call_sid}, {{}}, 0 packets queued, 0 sent>"
            scene.see(call._uplink, of.format("idle"), of.format("ended"))


async def transport(scene: Scene, directory: Path) -> None:
    """A connection and its streams, over UDP."""
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    tls = ServerTLS(certificate_chain_pem=chain, private_key_pem=leaf.private_key_pem.bytes())
    async with open_listener(("127.0.0.1", 0), tls=tls) as listener:
        port = listener.address[1]
        trusted = ClientTLS(ca=authority.cert_pem.bytes())
        async with open_connection("127.0.0.1", port, tls=trusted) as connection:
            await listener.accept()
            stream = await connection.open_bidi()
            of = "<Connection to ('127.0.0.1', *), {}, {} streams>"
            scene.see(connection, of.format("established", 2), of.format("over by us", 0))
            of = "<BidiStream 0: <SendStream 0, {}>, <ReceiveStream 0, {}, 0 bytes waiting>>"
            scene.see(stream, of.format("open", "open"), of.format("ended", "ended"))
            of = "<Listener {}, {} connections, 0 half open>"
            scene.see(listener, of.format("at ('127.0.0.1', *)", 1), of.format("closed", 0))
            stream.abandon()
    socket = await open_udp_socket("127.0.0.1")
    scene.see(socket, "<UdpSocket ('127.0.0.1', *)>", "<UdpSocket closed>")
    socket.close()


async def agents(scene: Scene, directory: Path) -> None:
    """Programs that take calls, place many, or let a model speak."""
    events: list[object] = []
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        gateway = await enter(open_simulated_gateway())
        gateway.pick_up(NUMBER)
        client = AgenTaoClient(gateway.endpoint, **gateway.options(), client_id="agent")
        of = "<AgenTaoClient of quic://gateway.test:9090: {}>"
        await enter(client)
        scene.see(client, of.format("<Session agent connected, 0 calls>"), of.format("not connected"))

        campaign = Campaign(client.session, [CampaignRow(to=NUMBER)], _hang_up, trunk_id="main")
        of = "<Campaign {}: <CampaignPlan, {} fresh, 0 calling, 0 waiting, {} finished>>"
        scene.see(campaign, of.format("not begun", 1, 0), of.format("over", 0, 1))
        await campaign.run()

        call = await enter(await client.session.originate(NUMBER, trunk_id="main"))
        await call.wait_answered()
        near, _ = memory_transports()
        scene.see(near, "<MemoryTransport open>", "<MemoryTransport closed with 1000>")
        model = await enter(open_realtime("ws://scripted", config=SessionConfig(), connect=simulated(Script())))
        scene.see(model, "<RealtimeSession sess_* at *, connected>", "<RealtimeSession sess_* at *, closed>")
        heard = stack.enter_context(contextlib.closing(model.subscribe("*", events.append)))
        scene.see(heard, "<Subscription to every event, open, *>", "<Subscription to every event, closed, *>")
        talk = await enter(bridge(call, model))
        of = "<Bridge of <ActiveCall *> and <RealtimeSession *>, {}>"
        scene.see(talk, of.format("going on"), of.format("left"))
        await near.aclose()


async def _hang_up(call: ActiveCall, row: CampaignRow) -> None:
    await call.hangup()


async def workers(scene: Scene, directory: Path) -> None:
    """What several programs share, while there is nothing to share it through."""
    url = f"redis://:{SECRET}@127.0.0.1:1/0"
    link = RedisLink(url)
    scene.see(link, *["<RedisLink not connected, 0 connections so far>"] * 2)
    async with trio.open_nursery() as nursery:
        fleet = Fleet(link, nursery, name="fleet", worker="w1", claim_seconds=5, max_waiting=1, keep_records=1)
        scene.see(fleet, *["<Fleet fleet as w1, not connected, 0 calls won, 0 records waiting>"] * 2)
    numbers = Numbers(link, "fleet:numbers:spring", "w1", takeover_seconds=5)
    scene.see(numbers, *["<Numbers fleet:numbers:spring as w1, 0 in hand>"] * 2)
    fan_out = FanOut(Hub(), url, key="live", state="live")
    scene.see(fan_out, *["<FanOut *, not connected, 0 events published, 0 missed>"] * 2)
    async with serve_live(Hub(), token=SECRET) as server:
        of = "<LiveServer http://*, 0 clients, 0 connections>"
        scene.see(server, of, of)
        scene.see(server.feed, *["<Feed *, 0 calls open, 0 over, 0 events>"] * 2)
    credentials = Authentication(account("acme"), "first_stream")
    scene.see(credentials, *["<Authentication of tenant acme, <TokenSource of ServiceAccount(*)>>"] * 2)


async def conformance(scene: Scene, directory: Path) -> None:
    """A check's view of its target."""
    kit = Kit(Profile(address=("127.0.0.1", 1)), seed=1, open_socket=object, limits=Limits(), tag="check-1")
    async with trio.open_nursery() as nursery:
        link = Link(kit, "A", None, Wire(None, kit.rng), nursery)  # type: ignore[arg-type]
    scene.see(kit, "<Kit check-1, 0 observations, 0 calls open>", "<Kit check-1, 1 observations, 1 calls open>")
    scene.see(link, *["<Link A of check-1, 0 streams came>"] * 2)
    kit.mark("over")
    kit.placed(link, "call-1")


@pytest.mark.parametrize("story", [telephone, media, transport, agents, workers, conformance])
def test_what_lives_says_its_state_now_and_when_all_is_over(
    story: Callable[[Scene, Path], Awaitable[None]], tmp_path: Path
) -> None:
    scene = Scene()
    trio.run(story, scene, tmp_path, clock=trio.testing.MockClock(autojump_threshold=0))
    for thing, shown, now, later in scene.seen:
        assert fnmatchcase(shown, now)
        assert fnmatchcase(repr(thing), later), "outside of trio, and after its end"
        assert SECRET not in shown
        assert "PRIVATE KEY" not in shown
