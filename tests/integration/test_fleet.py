"""Several workers and a real Redis: each call is answered once, and records and numbers survive what dies."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from agentao_trio import ActiveCall, serve
from agentao_trio.callstate import CallState
from agentao_trio.campaign import CampaignRow
from agentao_trio.errors import CallEnded
from agentao_trio.fleet import Fleet, FleetError, Shipped, open_fleet
from agentao_trio.gateway import GatewaySettings, open_gateway
from agentao_trio.history import CallFilter, open_history
from agentao_trio.hub import Hub
from agentao_trio.records import RecordKind
from agentao_trio.store import StoreError, open_store
from tests.support.redis_server import RedisServer, redis_server

#: coredis leaves a stream of anyio's open with every attempt to connect that fails.
pytestmark = pytest.mark.filterwarnings("ignore:.*MemoryObject:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _what_coredis_leaves_is_collected_here() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


#: Seconds after which a test does not wait any more.
HANGS = 120
#: Callers who do not hang up however long a busy machine needs to answer them.
PATIENT = GatewaySettings(patience=600)


@pytest.fixture(autouse=True)
def _opening_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentao_trio.fleet.OPEN_SECONDS", HANGS)


async def until(fact: Callable[[], bool]) -> None:
    with trio.fail_after(HANGS):
        while not fact():
            await trio.sleep(0.02)


class Ringing:
    """A call, as far as a claim sees it."""

    def __init__(self, call_sid: str = "call") -> None:
        self.call_sid = call_sid
        self.state = CallState.PENDING
        self.released = False
        self._changed = trio.Event()

    async def wait_answered(self) -> None:
        await self._changed.wait()
        if self.state is CallState.DISCONNECTED:
            raise CallEnded("it is over", call_sid=self.call_sid)

    def become(self, state: CallState) -> None:
        self.state = state
        self._changed.set()

    def release(self) -> None:
        self.released = True
        self.become(CallState.DISCONNECTED)


def room() -> bool:
    return True


# -- claims -----------------------------------------------------------------------------------------------------------


async def test_of_many_workers_exactly_one_takes_a_call(redis: RedisServer) -> None:
    calls = [Ringing() for _ in range(5)]
    won: list[int] = []

    async def take(number: int, fleet: Fleet) -> None:
        async with fleet.claim(calls[number], room) as ours:
            if ours:
                won.append(number)
                for call in calls:  # the gateway tells everybody
                    call.become(CallState.ANSWERED)

    async with contextlib.AsyncExitStack() as stack:
        fleets = [await stack.enter_async_context(open_fleet(redis.url)) for _ in calls]
        async with trio.open_nursery() as nursery:
            for number, fleet in enumerate(fleets):
                nursery.start_soon(take, number, fleet)
        assert len(won) == 1
        assert sum(fleet.statistics().claims_won for fleet in fleets) == 1
        assert sum(fleet.statistics().claims_lost for fleet in fleets) == 4
        late = Ringing()  # who hears of the call only now
        async with fleets[0].claim(late, room) as ours:
            assert not ours


async def test_a_claim_is_kept_for_as_long_as_the_call_rings_and_given_back_when_left(redis: RedisServer) -> None:
    async with open_fleet(redis.url, claim_seconds=4) as first, open_fleet(redis.url, claim_seconds=4) as second:
        mine, yours = Ringing(), Ringing()
        async with first.claim(mine, room) as ours:
            assert ours
            with trio.move_on_after(9) as waiting:  # more than twice as long as it lasts unless it is renewed
                async with second.claim(yours, room):
                    raise AssertionError("two workers have one call")
            assert waiting.cancelled_caught
        with trio.fail_after(HANGS):
            async with second.claim(yours, room) as ours:
                assert ours


async def test_a_cancelled_worker_gives_its_claims_back(redis: RedisServer) -> None:
    async with open_fleet(redis.url, claim_seconds=60) as first, open_fleet(redis.url) as second:
        with trio.CancelScope() as scope:
            async with first.claim(Ringing(), room) as ours:
                assert ours
                scope.cancel()
                await trio.sleep_forever()
        with trio.fail_after(HANGS):
            async with second.claim(Ringing(), room) as ours:
                assert ours


async def test_who_has_no_room_waits_until_there_is_some(redis: RedisServer) -> None:
    async with open_fleet(redis.url) as fleet:
        held = 0
        most = 0

        async def take(call: Ringing) -> None:
            nonlocal held, most
            async with fleet.claim(call, lambda: held < 2) as ours:
                assert ours
                held += 1
                most = max(most, held)
                await trio.sleep(0.1)
                call.become(CallState.DISCONNECTED)
                held -= 1

        with trio.fail_after(HANGS):
            async with trio.open_nursery() as nursery:
                for number in range(6):
                    nursery.start_soon(take, Ringing(f"call {number}"))
        assert most == 2


async def test_a_claim_that_cannot_be_renewed_is_given_up_and_an_answered_call_goes_on(redis: RedisServer) -> None:
    async with open_fleet(redis.url, claim_seconds=1.0) as fleet:
        ringing, talking, late = Ringing("ringing"), Ringing("talking"), Ringing("late")
        async with contextlib.AsyncExitStack() as stack:
            for call in (ringing, talking):
                assert await stack.enter_async_context(fleet.claim(call, room))
            talking.become(CallState.ANSWERED)
            redis.stop()
            await until(lambda: ringing.released)
            assert not talking.released
            assert fleet.statistics().claims_lapsed == 1
            assert not fleet.statistics().connected
            with trio.move_on_after(1.5) as waiting:
                async with fleet.claim(late, room):
                    raise AssertionError("without Redis nobody takes another call")
            assert waiting.cancelled_caught
            redis.start()
            async with fleet.claim(late, room) as ours:
                assert ours
                late.become(CallState.ANSWERED)


async def test_a_redis_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agentao_trio.fleet.OPEN_SECONDS", 0.5)
        with pytest.raises(FleetError, match=r"redis://127\.0\.0\.1:1 cannot be reached") as caught:
            async with open_fleet("redis://user:secret@127.0.0.1:1"):
                pass
    assert "secret" not in str(caught.value)


# -- records ----------------------------------------------------------------------------------------------------------


def published(hub: Hub, numbers: range) -> None:
    for number in numbers:
        hub.publish(RecordKind.GAP, f"call-{number % 3}", packets=number)


async def test_records_of_all_workers_come_once_and_in_order_though_redis_restarts(redis: RedisServer) -> None:
    got: list[Shipped] = []

    async def handle(shipped: Shipped) -> None:
        await trio.lowlevel.checkpoint()
        got.append(shipped)

    async with open_fleet(redis.url) as first, open_fleet(redis.url) as second, trio.open_nursery() as nursery:
        hubs = Hub(), Hub()
        first.attach(hubs[0])
        second.attach(hubs[1])
        await nursery.start(partial(first.consume, "archive", handle))
        published(hubs[0], range(1, 1001))
        published(hubs[1], range(1, 1001))
        await until(lambda: len(got) > 200)
        redis.stop()
        published(hubs[0], range(1001, 1501))
        await until(lambda: not first.statistics().connected)
        assert first.statistics().records_waiting >= 500
        redis.start()
        with trio.fail_after(HANGS):
            await first.flush()
            await second.flush()
        await until(lambda: len({(each.run, each.record.number) for each in got}) == 2500)
        nursery.cancel_scope.cancel()
    for fleet, most in ((first, 1500), (second, 1000)):
        numbers = [each.record.number for each in got if each.worker == fleet.worker]
        assert sorted(set(numbers)) == list(range(1, most + 1))
        assert len(numbers) - most <= 1  # what was handled when Redis went, and could not be reported
        assert fleet.statistics().records_dropped == 0
    assert all(each.record.data == {"packets": each.record.number} for each in got)


async def test_records_wait_bounded_and_counted(redis: RedisServer) -> None:
    async with open_fleet(redis.url, max_waiting=100_000) as fleet:
        hub = Hub()
        fleet.attach(hub)
        redis.stop()
        published(hub, range(1, 1001))
        statistics = fleet.statistics()
        assert statistics.bytes_waiting <= 100_000
        assert statistics.records_dropped == 1000 - statistics.records_waiting
        assert statistics.records_dropped > 500
        redis.start()
        with trio.fail_after(HANGS):
            await fleet.flush()
        assert fleet.statistics().bytes_waiting == 0


async def test_what_a_dead_consumer_had_goes_to_another_of_its_group(redis: RedisServer) -> None:
    got: list[int] = []

    async def die(shipped: Shipped) -> None:
        await trio.lowlevel.checkpoint()
        if shipped.record.number == 20:
            raise ZeroDivisionError

    async def handle(shipped: Shipped) -> None:
        await trio.lowlevel.checkpoint()
        got.append(shipped.record.number)

    async with open_fleet(redis.url) as fleet, open_fleet(redis.url) as other:
        hub = Hub()
        fleet.attach(hub)
        published(hub, range(1, 101))
        await fleet.flush()
        with pytest.raises(ZeroDivisionError):
            await fleet.consume("archive", die)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(other.consume, "archive", handle, takeover_seconds=0.5))
            await until(lambda: len(got) == 81)
            nursery.cancel_scope.cancel()
    assert sorted(got) == list(range(20, 101))


# -- campaigns --------------------------------------------------------------------------------------------------------

ROWS = [CampaignRow(to=f"+1555010{number:04}", data={"name": f"No. {number}"}, line=number) for number in range(1, 41)]


async def test_each_number_of_a_campaign_is_called_by_one_worker(redis: RedisServer) -> None:
    called: list[str] = []

    async def work(fleet: Fleet) -> None:
        numbers = fleet.numbers("spring")
        await numbers.load(ROWS)

        async def call() -> None:
            async for number in numbers:
                assert number.taken_before == 0
                called.append(number.row.to)
                await trio.sleep(0.01)
                await number.settle("answered" if number.row.line % 4 else "busy")

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(call)

    async with open_fleet(redis.url) as first, open_fleet(redis.url) as second:
        with trio.fail_after(HANGS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work, first)
                nursery.start_soon(work, second)
        assert sorted(called) == [row.to for row in ROWS]
        assert await second.numbers("spring").outcomes() == {"answered": 30, "busy": 10}
        with pytest.raises(FleetError, match="has no numbers"):
            await second.numbers("autumn").unsettled()


async def test_a_number_that_a_dead_worker_had_comes_back_and_says_so(redis: RedisServer) -> None:
    async with open_fleet(redis.url) as survivor:
        async with open_fleet(redis.url) as dying:
            theirs = dying.numbers("spring", takeover_seconds=0.5)
            await theirs.load(ROWS[:2])
            first = await anext(theirs)
        ours = survivor.numbers("spring", takeover_seconds=0.5)
        with trio.fail_after(HANGS):
            found = {}
            async for number in ours:
                found[number.row.to] = number.taken_before
                await trio.sleep(1.0 if not number.taken_before else 0)  # longer than that: ours are renewed
                await number.settle("answered")
    assert found == {first.row.to: 1, ROWS[1].to: 0}
    assert first.row == ROWS[0]


# -- calls ------------------------------------------------------------------------------------------------------------

WORKER = """
    import sys, trio
    from agentao_trio import ClientTLS, serve
    from agentao_trio.fleet import open_fleet

    async def answer(call):
        if sys.argv[4] == "two":
            await trio.sleep_forever()  # claimed, and not answered: what a dead worker leaves behind
        await trio.sleep(0.3)
        await call.answer()
        print(call.call_sid, flush=True)
        await call.wait_ended()

    async def main(endpoint, ca, redis, name):
        async with open_fleet(redis, worker=name, claim_seconds=5) as fleet:
            await serve(answer, endpoint, tls=ClientTLS(ca=ca), trunks=["main"], poll_interval=0.2, max_calls=4,
                        claim=fleet.claim, client_id=name)

    trio.run(main, *sys.argv[1:])
"""


async def test_every_call_of_a_storm_is_answered_once_though_a_worker_is_killed(
    redis: RedisServer, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    answered: list[tuple[str, str]] = []

    async with open_gateway(host="127.0.0.1", port=0, settings=PATIENT) as gateway, trio.open_nursery() as nursery:
        ca.write_bytes(gateway.ca_pem)
        workers = {}
        for name in ("one", "two", "three"):
            program = [sys.executable, "-c", textwrap.dedent(WORKER), gateway.endpoint, str(ca), redis.url, name]
            workers[name] = await trio.lowlevel.open_process(program, stdout=subprocess.PIPE)

        async def read(name: str) -> None:
            output = workers[name].stdout
            assert output is not None
            text = b""
            async for chunk in output:
                text += chunk
                *lines, text = text.split(b"\n")
                answered.extend((name, line.decode()) for line in lines)

        try:
            for name in workers:
                nursery.start_soon(read, name)
            await until(lambda: gateway.statistics().listener.connections == len(workers))
            placed: list[str] = []
            for _ in range(30):
                placed.append(gateway.place_inbound_call(trunk_id="main", far_end="hangup") or "")
                if len(placed) == 9:
                    workers["two"].kill()
                await trio.sleep(0.05)
            dead = workers["two"]
            await dead.wait()
            await until(lambda: {sid for _, sid in answered} == set(placed))
        finally:
            with trio.CancelScope(shield=True):
                for process in workers.values():
                    process.send_signal(signal.SIGKILL)
                    await process.wait()
        nursery.cancel_scope.cancel()
    assert max(Counter(sid for _, sid in answered).values()) == 1
    assert {"one", "three"} <= {name for name, _ in answered}


async def test_calls_go_on_without_redis_and_history_knows_whose_they_were(redis: RedisServer, tmp_path: Path) -> None:
    talking: list[ActiveCall] = []

    async def answer(call: ActiveCall) -> None:
        await call.answer()
        talking.append(call)
        await call.wait_ended()

    async with contextlib.AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(open_gateway(host="127.0.0.1", port=0, settings=PATIENT))
        store = await stack.enter_async_context(open_store(tmp_path / "calls.db"))
        nursery = await stack.enter_async_context(trio.open_nursery())
        sessions = []
        for _ in range(2):
            fleet, hub = await stack.enter_async_context(open_fleet(redis.url)), Hub()
            fleet.attach(hub)
            store.attach(hub)
            server = partial(serve, answer, tls=gateway.tls, trunks=["main"], claim=fleet.claim, hub=hub)
            sessions.append(await nursery.start(server, gateway.endpoint))
        placed = [gateway.place_inbound_call(trunk_id="main", far_end="tone") for _ in range(4)]
        await until(lambda: len(talking) == 4)
        await until(lambda: sum(len(session.calls) for session in sessions) == 4)
        redis.stop()
        before = [call.statistics().packets_received for call in talking]
        await until(
            lambda: all(call.statistics().packets_received > count for call, count in zip(talking, before, strict=True))
        )
        assert {call.state for call in talking} == {CallState.ANSWERED}
        gateway.place_inbound_call(trunk_id="main")
        await trio.sleep(1.0)
        assert len(talking) == 4
        redis.start()
        await until(lambda: len(talking) == 5)
        nursery.cancel_scope.cancel()
    with open_history(tmp_path / "calls.db") as history:
        calls = list(history.calls())
        assert {call.call_sid for call in calls} >= set(placed)
        assert [call.status for call in calls] == ["completed"] * 5
        assert len(list(history.calls(CallFilter(status="elsewhere")))) == 5
        assert {record.kind for record in history.records(call_sid=placed[0])} >= {RecordKind.COMMAND}


def children(pid: int) -> set[int]:
    """The processes that ``pid`` started, on Linux."""
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for thread in threads for child in thread.read_text().split()}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find the workers")
async def test_the_command_keeps_its_workers_and_leaves_nothing_behind(redis: RedisServer, tmp_path: Path) -> None:
    history = tmp_path / "calls.db"

    def answered() -> set[str]:
        if not history.exists():
            return set()
        try:
            with open_history(history) as found:
                return {call.call_sid for call in found.calls(CallFilter(status="completed"))}
        except StoreError:
            return set()  # it is being made

    async with open_gateway(host="127.0.0.1", port=0, settings=PATIENT) as gateway, trio.open_nursery() as nursery:
        (tmp_path / "ca.pem").write_bytes(gateway.ca_pem)

        async def call_in() -> None:
            while True:
                gateway.place_inbound_call(trunk_id="main", far_end="hangup")
                await trio.sleep(0.4)

        nursery.start_soon(call_in)
        command = [sys.executable, "-m", "agentao_trio", "agent", "--workers", "3", "--fleet", redis.url]
        command += ["--gateway", gateway.endpoint, "--ca", str(tmp_path / "ca.pem"), "--history", str(history)]
        agent = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            await until(lambda: len(answered()) >= 3)
            await until(lambda: len(children(agent.pid)) == 3)
            first = children(agent.pid)
            victim = min(first)
            os.kill(victim, signal.SIGKILL)
            await until(lambda: len(children(agent.pid) - {victim}) == 3)
            before = len(answered())
            await until(lambda: len(answered()) >= before + 3)
            workers = children(agent.pid)
            agent.terminate()
            with trio.fail_after(HANGS):
                assert await agent.wait() == 128 + signal.SIGTERM
        finally:
            if agent.returncode is None:
                agent.kill()
        nursery.cancel_scope.cancel()
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    with open_history(history) as found:
        ours = Counter(call.call_sid for call in found.calls(CallFilter(status="completed")))
        # By one of them each; but a worker that learns late that a call is another's has seen it to its end.
        assert Counter(ours.values())[1] > len(ours) / 2


PAGE = Path(__file__).parents[2] / "docs" / "howto" / "several-workers.md"


async def test_the_programs_of_the_page_work_together(redis: RedisServer, tmp_path: Path) -> None:
    """Two workers share calls and a campaign, and a third program archives what they tell."""
    programs = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert [name for name, _ in programs] == ["worker.py", "archive.py", "campaign.py"]
    rows = [f"+1555010{end:04}" for end in (16, 1, 2, 3, 4, 638)]
    (tmp_path / "numbers.csv").write_text("\n".join(["to", *rows]))
    outputs: dict[str, Path] = {}

    async with open_gateway(host="127.0.0.1", port=0, settings=PATIENT) as gateway:
        (tmp_path / "ca.pem").write_bytes(gateway.ca_pem)
        for name, text in programs:
            text = text.replace("quic://127.0.0.1:9090", gateway.endpoint).replace("redis://127.0.0.1:6379", redis.url)
            (tmp_path / name).write_text(text)
        running: list[trio.Process] = []

        async def start(name: str, *arguments: str) -> trio.Process:
            outputs[name + "".join(arguments)] = output = tmp_path / f"{name}{'-'.join(arguments)}.txt"
            with output.open("wb") as target:
                command = [sys.executable, "-u", name, *arguments]
                process = await trio.lowlevel.open_process(command, stdout=target, cwd=tmp_path)
            running.append(process)
            return process

        def said(*names: str) -> list[str]:
            return [line for name in names for line in outputs[name].read_text().splitlines()]

        try:
            workers = [await start("worker.py", name) for name in ("one", "two")]
            await start("archive.py")
            await until(lambda: gateway.statistics().listener.connections == len(workers))
            sids = [gateway.place_inbound_call(trunk_id="main") for _ in range(6)]
            await until(lambda: len(said("worker.pyone", "worker.pytwo")) == 6)
            assert sorted(line.split()[-1] for line in said("worker.pyone", "worker.pytwo")) == sorted(
                filter(None, sids)
            )
            for worker in workers:
                worker.terminate()
            callers = [await start("campaign.py", name) for name in ("three", "four")]
            with trio.fail_after(HANGS):
                assert [await caller.wait() for caller in callers] == [0, 0]
                assert [await worker.wait() for worker in workers] == [0, 0]
            called = [line.split()[1] for line in said("campaign.pythree", "campaign.pyfour")]
            assert sorted(called) == sorted(rows)

            def archived(what: str) -> set[str]:
                return {json.loads(line)[what] for line in said("archive.py")}

            await until(lambda: {sid for sid in sids if sid} <= archived("call_sid"))
            await until(lambda: archived("worker") == {"one", "two"})
        finally:
            with trio.CancelScope(shield=True):
                for process in running:
                    if process.returncode is None:
                        process.kill()
                    await process.wait()
