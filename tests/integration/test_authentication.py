"""Sessions that say who they are: to the embedded gateway, and to scripted ones that are hard to please."""

from __future__ import annotations

import logging
import re
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import trio
from trio.testing import MockClock

from agentao_trio import (
    AgentaoError,
    AuthenticationError,
    CommandRejected,
    CommandTimeout,
    DialplanAction,
    EventType,
    ServiceAccount,
    SessionState,
    TokenSource,
    messages,
    open_session,
)
from agentao_trio.close_codes import CloseCode
from agentao_trio.credentials import LEEWAY
from agentao_trio.gateway import GatewaySettings, Trunk
from agentao_trio.gateway.silence import Silence
from agentao_trio.messages import ErrorCode, MethodId
from agentao_trio.presenters import Authentication
from agentao_trio.testing import MemoryNetwork
from agentao_trio.transport import BidiStream, Connection
from tests.support.accounts import account, private_pem, verifier, write_account
from tests.support.scripted_gateway import ScriptedGateway, serving, session_on
from tests.support.simulated import simulated

TO = "+15550100001"
REQUIRED = GatewaySettings(verifier=verifier("acme", "globex", leeway=LEEWAY), authentication="required")


def claims_of(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


# -- with the embedded gateway ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("presenter", ["first_stream", "tenant_field"])
async def test_a_whole_call_on_a_gateway_that_requires_a_token(presenter: str, autojump_clock: MockClock) -> None:
    async with simulated(REQUIRED, credentials=account(), presenter=presenter) as (session, gateway):
        async with await session.originate(TO, trunk_id="main") as call:
            await call.wait_answered()
            await call.send_audio(bytes(160))
            async for frame in call.audio():
                assert frame.payload == bytes(160)
                break
        ending = await call.wait_ended()
        assert (ending.event.tenant_id, ending.q850_cause) == ("acme", 16)
        assert gateway.statistics().model.tokens_refused == 0


async def test_without_a_presenter_no_token_is_sent(autojump_clock: MockClock) -> None:
    async with simulated(REQUIRED, credentials=account()) as (session, gateway):
        with pytest.raises(CommandRejected, match=r"ERR_UNAUTHORIZED \(7\).*requires a token") as caught:
            await session.originate(TO, trunk_id="main")
        assert (caught.value.code, caught.value.retryable) == (ErrorCode.ERR_UNAUTHORIZED, False)
        with pytest.raises(CommandRejected, match=r"reset the stream of GetIncomingCalls \(code 2\)"):
            await session.get_incoming_calls("main")
        figures = gateway.statistics().model
        assert (figures.tokens_accepted, figures.tokens_refused) == (0, 0)


async def test_the_file_of_a_service_account_will_do(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = write_account(tmp_path / "account.json")
    async with simulated(REQUIRED, credentials=path, presenter="first_stream") as (session, _):
        await session.get_active_buckets()


@pytest.mark.parametrize(
    ("credentials", "why"),
    [
        (account("initech"), "a tenant the gateway does not know"),
        (account("acme", kid="key-2"), "a key it does not know"),
        (account("acme", owner="globex"), "another tenant's key"),
        (TokenSource(account(), claims={"aud": "somebody-else"}), "another audience"),
    ],
    ids=lambda each: each.replace(" ", "_") if isinstance(each, str) else "",
)
async def test_a_token_that_is_refused_fails_the_session(
    credentials: ServiceAccount | TokenSource, why: str, autojump_clock: MockClock
) -> None:
    with pytest.raises(AuthenticationError, match="the gateway refused the token"):
        async with simulated(REQUIRED, credentials=credentials, presenter="first_stream"):
            pass  # pragma: no cover


async def test_tenants_do_not_see_each_other(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    trunks = {"main": Trunk(tenant="acme"), "other": Trunk(tenant="globex")}
    settings = GatewaySettings(
        verifier=verifier("acme", "globex", leeway=LEEWAY), authentication="required", trunks=trunks
    )
    who: dict[str, Any] = {"client_id": "desk", "presenter": "first_stream"}
    async with (
        simulated(settings, network, credentials=account("acme"), **who) as (ours, gateway),
        open_session(
            "quic://gateway.test:9090", tls=gateway.tls, socket=network.socket(), credentials=account("globex"), **who
        ) as theirs,
    ):
        heard = theirs.events()
        async with await ours.originate(TO, trunk_id="main") as call:
            await call.wait_answered()
            with pytest.raises(CommandRejected, match="no open call"):
                await theirs.terminate(call.call_sid)
            with pytest.raises(CommandRejected):
                await theirs.barge(call.call_sid)
            with pytest.raises(CommandRejected, match="ERR_INVALID_TRUNK"):
                await theirs.originate(TO, trunk_id="main")
            assert call.call_sid in ours.calls
        await theirs.originate(TO, trunk_id="other", call_sid="theirs")
        record = await anext(heard)
        assert (record.call_sid, record.event.tenant_id) == ("theirs", "globex")


async def test_a_long_session_presents_a_new_token_before_the_old_one_expires(autojump_clock: MockClock) -> None:
    tokens = TokenSource(account(), lifetime=120)
    async with simulated(REQUIRED, credentials=tokens, presenter="first_stream") as (session, gateway):
        for _ in range(10):
            await trio.sleep(60)
            await session.get_active_buckets()
        figures = gateway.statistics().model
        assert figures.requests_refused == 0
        assert figures.tokens_accepted == 1 + 600 // 90


async def test_a_token_in_the_tenant_field_is_renewed_when_it_is_needed(autojump_clock: MockClock) -> None:
    tokens = TokenSource(account(), lifetime=120)
    async with simulated(REQUIRED, credentials=tokens, presenter="tenant_field") as (session, gateway):
        for _ in range(3):
            async with await session.originate(TO, trunk_id="main") as call:
                await call.wait_answered()
            await trio.sleep(130)
        assert gateway.statistics().model.requests_refused == 0


async def test_every_new_connection_begins_with_a_token(autojump_clock: MockClock) -> None:
    async with simulated(REQUIRED, credentials=account(), presenter="first_stream") as (session, gateway):
        async with await session.originate(TO, trunk_id="main") as call:
            await call.wait_answered()
            await gateway.disconnect()
            await trio.sleep(1)
            assert session.statistics().connections == 2
            assert gateway.statistics().model.tokens_accepted == 2
        assert (await call.wait_ended()).event.tenant_id == "acme"


async def test_it_survives_a_network_that_loses_a_tenth(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(seed=4, loss=0.1, delay=0.05)
    async with simulated(REQUIRED, network, credentials=account(), presenter="first_stream") as (session, gateway):
        async with await session.originate(TO, trunk_id="main") as call:
            await call.wait_answered()
        assert gateway.statistics().model.requests_refused == 0


# -- with gateways that are hard to please ----------------------------------------------------------------------------


class Shown:
    """A presenter of the program's own: keeps the tokens, and may refuse them."""

    def __init__(self, refusals: int = 0) -> None:
        self.tokens: list[str] = []
        self.refusals = refusals

    async def __call__(self, connection: Connection, token: str) -> None:
        await trio.lowlevel.checkpoint()
        self.tokens.append(token)
        if len(self.tokens) <= self.refusals:
            raise AuthenticationError("not this one")


def moody(refusals: int, methods: frozenset[MethodId] = frozenset(MethodId)) -> ScriptedGateway:
    """Answers the first so many commands with ERR_UNAUTHORIZED, a second late, and carries out the others."""
    left = [refusals]

    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.StreamEvents:
            return None
        await trio.sleep(1)
        code = ErrorCode.SUCCESS
        if left[0] and method in methods:
            left[0] -= 1
            code = ErrorCode.ERR_UNAUTHORIZED
        if method is MethodId.Terminate:
            if not code:
                await gateway.event(request.call_sid, EventType.CHANNEL_HANGUP_COMPLETE, q850_cause=16)
            return messages.TerminateResponse(call_sid=request.call_sid, error_code=code)
        if method is MethodId.Originate:
            return messages.OriginateResponse(call_sid=request.call_sid, error_code=code)
        return messages.ExecuteDialplanResponse(error_code=code)

    gateway = ScriptedGateway(answer)
    return gateway


async def test_the_tenants_name_is_all_that_goes_out_by_default(autojump_clock: MockClock) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        match method:
            case MethodId.OriginateBulk:
                return messages.BulkResponse(loaded_numbers=1)
            case MethodId.Originate:
                return messages.OriginateResponse(call_sid=request.call_sid)
        return None

    gateway = ScriptedGateway(answer)
    async with session_on(gateway, credentials=account()) as session:
        await session.originate(TO, trunk_id="main")
        bulk: dict[str, Any] = {
            "trunk_id": "main",
            "calls_per_second": 1,
            "max_concurrent_calls": 1,
            "campaign_id": "c",
        }
        await session.originate_bulk("file:///numbers.csv", **bulk)
        await session.originate_bulk("file:///numbers.csv", **bulk, tenant_id="of-the-campaign")
    assert [each.tenant_id for each in gateway.requested(MethodId.Originate)] == ["acme"]
    assert [each.template_tenant_id for each in gateway.requested(MethodId.OriginateBulk)] == [
        "acme",
        "of-the-campaign",
    ]
    assert gateway.tokens == []


async def test_a_tenant_given_by_hand_goes_first(autojump_clock: MockClock) -> None:
    gateway = moody(0)
    async with session_on(gateway, credentials=account(), tenant_id="by-hand") as session:
        await session.originate(TO, trunk_id="main")
    assert [each.tenant_id for each in gateway.requested(MethodId.Originate)] == ["by-hand"]


async def test_the_token_comes_first_and_alone(autojump_clock: MockClock) -> None:
    gateway = ScriptedGateway()
    seen: list[int] = []

    def note(stream: BidiStream) -> None:
        seen.append(len(gateway.requests))
        stream.finish()

    gateway.on_token = note
    async with session_on(gateway, credentials=account(), presenter="first_stream"):
        await trio.sleep(0.1)
    assert seen == [0]
    assert [method for method, _, _ in gateway.requests] == [MethodId.StreamEvents]
    assert claims_of(gateway.tokens[0])["tenant_id"] == "acme"


async def test_a_gateway_that_does_not_care_for_the_token_costs_a_second(autojump_clock: MockClock) -> None:
    gateway = ScriptedGateway()
    gateway.on_token = lambda stream: None
    began = trio.current_time()
    async with session_on(gateway, credentials=account(), presenter="first_stream"):
        assert 1.0 <= trio.current_time() - began < 1.5


async def test_a_gateway_that_closes_the_connection_for_the_token(autojump_clock: MockClock) -> None:
    network, gateway = MemoryNetwork(), ScriptedGateway()
    async with trio.open_nursery() as nursery, serving(gateway, network) as where:

        def close(stream: BidiStream) -> None:
            assert gateway.connection is not None
            nursery.start_soon(gateway.connection.aclose, 2, "who are you?")

        gateway.on_token = close
        with pytest.raises(AuthenticationError, match="closed the connection"):
            async with open_session(**where, credentials=account(), presenter="first_stream"):
                pass  # pragma: no cover


async def test_a_presenter_of_the_programs_own(autojump_clock: MockClock) -> None:
    shown = Shown()
    async with session_on(ScriptedGateway(), credentials=account(), presenter=shown):
        pass
    assert len(shown.tokens) == 1


async def test_a_refused_presentation_is_tried_with_one_other_token(autojump_clock: MockClock) -> None:
    tokens = TokenSource(account(), lifetime=7200)
    stale = tokens.token(time.time() - 1000)
    shown = Shown(refusals=1)
    async with session_on(ScriptedGateway(), credentials=tokens, presenter=shown):
        pass
    assert shown.tokens[0] == stale
    assert len(shown.tokens) == 2


async def test_a_presentation_that_stays_refused(autojump_clock: MockClock) -> None:
    shown = Shown(refusals=9)
    network = MemoryNetwork()
    async with serving(ScriptedGateway(), network) as where:
        with pytest.raises(AuthenticationError, match="not this one"):
            async with open_session(**where, credentials=account(), presenter=shown):
                pass  # pragma: no cover
    assert len(shown.tokens) <= 2


async def test_a_renewal_that_is_refused_does_not_end_the_session(autojump_clock: MockClock) -> None:
    shown = Shown()
    tokens = TokenSource(account(), lifetime=120)
    async with session_on(ScriptedGateway(), credentials=tokens, presenter=shown) as session:
        shown.refusals = 3
        await trio.sleep(300)
        assert session.statistics().connections == 1
    assert len(shown.tokens) > 3


async def test_a_token_that_is_refused_on_a_later_connection_is_presented_again_and_again(
    autojump_clock: MockClock,
) -> None:
    gateway = ScriptedGateway()
    async with session_on(gateway, credentials=account(), presenter="first_stream") as session:
        gateway.on_token = lambda stream: stream.abandon(CloseCode.UNAUTHORIZED)
        assert gateway.connection is not None
        await gateway.connection.aclose()
        await trio.sleep(20)
        assert session.state is SessionState.RECONNECTING
        assert len(gateway.tokens) > 5
        gateway.on_token = BidiStream.finish
        await trio.sleep(10)
        assert session.state is SessionState.CONNECTED


async def test_a_machine_that_was_suspended_presents_a_new_token_when_it_wakes_up(autojump_clock: MockClock) -> None:
    asleep = 0.0
    shown = Shown()
    tokens = TokenSource(account(), lifetime=3600)
    authentication = Authentication(tokens, shown, wall_clock=lambda: 1_700_000_000 + trio.current_time() + asleep)
    async with session_on(ScriptedGateway()) as session, trio.open_nursery() as nursery:
        connection = await session._link.wait_up()
        await authentication.connected(connection)
        nursery.start_soon(authentication.keep_fresh, session._link.wait_up)
        await trio.sleep(600)
        assert len(shown.tokens) == 1
        asleep = 8 * 3600.0  # during which trio's clock stood still
        await trio.sleep(61)
        assert len(shown.tokens) == 2
        assert claims_of(shown.tokens[1])["iat"] > claims_of(shown.tokens[0])["exp"]
        nursery.cancel_scope.cancel()


async def test_waiting_for_the_gateways_opinion_can_be_cancelled(autojump_clock: MockClock) -> None:
    gateway = ScriptedGateway()
    gateway.on_token = lambda stream: None
    network = MemoryNetwork()
    async with serving(gateway, network) as where:
        with trio.move_on_after(0.5) as scope:
            async with open_session(**where, credentials=account(), presenter="first_stream"):
                pass  # pragma: no cover
        assert scope.cancelled_caught
        assert len(gateway.tokens) == 1
        assert trio.current_time() - scope.deadline < 0.2


Command = Callable[[Any], Awaitable[Any]]
COMMANDS: dict[str, tuple[MethodId, Command]] = {
    "originate": (MethodId.Originate, lambda session: session.originate(TO, trunk_id="main")),
    "terminate": (MethodId.Terminate, lambda session: session.terminate("call")),
    "execute": (MethodId.ExecuteDialplan, lambda session: session.execute_dialplan("call", DialplanAction.UNHOLD)),
}


@pytest.mark.parametrize(("method", "command"), COMMANDS.values(), ids=COMMANDS.keys())
async def test_a_refused_command_is_repeated_once_with_a_new_token(
    method: MethodId, command: Command, autojump_clock: MockClock
) -> None:
    """Also Originate: the gateway has said that it did not place the call."""
    gateway, shown = moody(1, frozenset({method})), Shown()
    async with session_on(gateway, credentials=account(), presenter=shown) as session:
        await command(session)
        assert len(gateway.requested(method)) == 2
    assert len(set(shown.tokens)) == 2


@pytest.mark.parametrize(("method", "command"), COMMANDS.values(), ids=COMMANDS.keys())
async def test_and_no_more_than_once(method: MethodId, command: Command, autojump_clock: MockClock) -> None:
    gateway, shown = moody(5, frozenset({method})), Shown()
    async with session_on(gateway, credentials=account(), presenter=shown) as session:
        with pytest.raises(CommandRejected) as caught:
            await command(session)
        assert caught.value.code == ErrorCode.ERR_UNAUTHORIZED
        assert len(gateway.requested(method)) == 2
        assert session.calls == {}
    assert len(set(shown.tokens)) == 2


async def test_commands_refused_together_share_one_renewal(autojump_clock: MockClock) -> None:
    gateway, shown = moody(20), Shown()
    async with session_on(gateway, credentials=account(), presenter=shown) as session:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(session.terminate, f"call-{number}")
        assert len(gateway.requested(MethodId.Terminate)) == 40
    assert len(shown.tokens) == 2


async def test_a_renewal_that_fails_leaves_the_refusal_as_it_was(autojump_clock: MockClock) -> None:
    gateway, shown = moody(1), Shown()
    async with session_on(gateway, credentials=account(), presenter=shown) as session:
        shown.refusals = 9
        with pytest.raises(CommandRejected):
            await session.terminate("call")
    assert len(gateway.requested(MethodId.Terminate)) == 1


async def test_without_a_token_nothing_is_repeated(autojump_clock: MockClock) -> None:
    gateway = moody(1)
    async with session_on(gateway, credentials=account()) as session:
        with pytest.raises(CommandRejected):
            await session.terminate("call")
    assert len(gateway.requested(MethodId.Terminate)) == 1


async def test_the_tenant_field_is_filled_in_anew_when_the_command_is_repeated(autojump_clock: MockClock) -> None:
    gateway = moody(1)
    async with session_on(gateway, credentials=account(), presenter="tenant_field") as session:
        await session.originate(TO, trunk_id="main")
        first, second = (each.tenant_id for each in gateway.requested(MethodId.Originate))
        assert first != second
        assert claims_of(second)["iat"] > claims_of(first)["iat"]


async def test_a_command_without_a_tenant_field_is_not_repeated_for_a_token_it_does_not_carry(
    autojump_clock: MockClock,
) -> None:
    gateway = moody(1)
    async with session_on(gateway, credentials=account(), presenter="tenant_field") as session:
        with pytest.raises(CommandRejected):
            await session.execute_dialplan("call", DialplanAction.UNHOLD)
    assert len(gateway.requested(MethodId.ExecuteDialplan)) == 1


async def test_an_originate_without_an_answer_is_never_repeated(autojump_clock: MockClock) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.Originate:
            raise ScriptedGateway.Silence
        return None

    gateway, shown = ScriptedGateway(answer), Shown()
    async with session_on(gateway, credentials=account(), presenter=shown, rpc_timeout=5) as session:
        with pytest.raises(CommandTimeout):
            await session.originate(TO, trunk_id="main")
    assert len(gateway.requested(MethodId.Originate)) == 1
    assert len(shown.tokens) == 1


@pytest.mark.parametrize(
    ("command", "method", "times"),
    [
        (lambda session: session.get_active_buckets(), MethodId.GetActiveBuckets, 2),
        (lambda session: session.barge("call"), MethodId.Barge, 2),
        (lambda session: session.originate(TO, trunk_id="main"), MethodId.Originate, 1),
        (lambda session: session.terminate("call"), MethodId.Terminate, 1),
    ],
)
async def test_a_reset_stream_is_a_refusal_only_where_repeating_does_no_harm(
    command: Command, method: MethodId, times: int, autojump_clock: MockClock
) -> None:
    tokens = TokenSource(account(), lifetime=120)
    async with simulated(REQUIRED, credentials=tokens, presenter="first_stream") as (session, gateway):
        asked = []

        def refuse(peer: Any, method: MethodId, request: Any, now: float) -> Any:
            asked.append(method)
            return Silence.UNAUTHORIZED

        await trio.sleep(2)
        gateway.model.handle = refuse  # type: ignore[method-assign]
        with pytest.raises(CommandRejected, match="code 2"):
            await command(session)
        assert asked.count(method) == times


# -- what open_session does not take ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"presenter": "first_stream"}, "no credentials to present"),
        ({"presenter": "wt_header", "credentials": account()}, "presenter is 'wt_header'; expected 'none'"),
    ],
)
async def test_presenters_that_make_no_sense(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        async with open_session("quic://127.0.0.1:9", **options):
            pass  # pragma: no cover


async def test_credentials_of_another_kind() -> None:
    with pytest.raises(TypeError, match="credentials are a dict; expected a path or a ServiceAccount"):
        async with open_session("quic://127.0.0.1:9", credentials={"private_key": "x"}):  # type: ignore[arg-type]
            pass  # pragma: no cover


async def test_a_file_that_is_not_there_is_told_before_anything_is_sent() -> None:
    with pytest.raises(AuthenticationError, match="No such file"):
        async with open_session("quic://127.0.0.1:9", credentials="/none/account.json"):
            pass  # pragma: no cover


# -- the page that explains it ----------------------------------------------------------------------------------------


def test_the_examples_of_the_how_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path(__file__).parents[2] / "docs" / "howto" / "authenticate.md"
    examples = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for example in examples:
        exec(compile(example, page, "exec"), {"__name__": "__main__"})
    assert len(examples) == 5
    printed = capsys.readouterr().out
    assert "a call of tenant acme" in printed
    assert "ERR_UNAUTHORIZED (7)" in printed


# -- secrets ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def everything_logged() -> Iterator[list[str]]:
    """The text of every record of every logger, at every level, as it would be written."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(logging.Formatter("%(name)s %(levelname)s %(message)s").format(record) + repr(record.args))

    root, keep = logging.getLogger(), Keep()
    levels = {name: logging.getLogger(name).level for name in logging.root.manager.loggerDict}
    before = root.level
    root.addHandler(keep)
    root.setLevel(logging.DEBUG)
    for name in levels:
        logging.getLogger(name).setLevel(logging.NOTSET)
    yield lines
    root.removeHandler(keep)
    root.setLevel(before)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def spelled_out(error: BaseException) -> str:
    """Everything that a program could print of an error, and of those that hang on to it."""
    parts = traceback.format_exception(error)
    pending: list[BaseException | None] = [error]
    seen: list[BaseException] = []
    while pending:
        each = pending.pop()
        # In circles too: trio before 0.34 leaves what it takes out of a group with that group as its context.
        if each is not None and not any(each is one for one in seen):
            seen.append(each)
            parts += [str(each), repr(each), repr(vars(each))]
            pending += [each.__cause__, each.__context__]
            pending += each.exceptions if isinstance(each, BaseExceptionGroup) else []
    return "\n".join(parts)


async def test_keys_and_tokens_are_in_no_log_and_no_error(
    tmp_path: Path, everything_logged: list[str], monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    made: list[str] = []

    class Recorded(TokenSource):
        def _sign(self, now: float) -> None:
            super()._sign(now)
            made.append(self._token)

    errors: list[BaseException] = []
    shown: list[str] = []

    async def attempt(credentials: Any, presenter: Any, settings: GatewaySettings = REQUIRED) -> None:
        try:
            async with simulated(settings, credentials=credentials, presenter=presenter) as (session, gateway):
                shown.extend((repr(session), repr(gateway.statistics()), repr(session.statistics())))
                events = session.events()
                async with await session.originate(TO, trunk_id="main") as call:
                    await call.wait_answered()
                    with pytest.raises(AgentaoError) as caught:
                        await session.terminate("nothing")
                    errors.append(caught.value)
                    await gateway.disconnect()
                    await trio.sleep(40)
                shown.extend((repr(await anext(events)), repr(await call.wait_ended())))
        except* AgentaoError as group:
            errors.append(group)

    for presenter in ("none", "first_stream", "tenant_field"):
        await attempt(Recorded(account(), lifetime=40), presenter)
        await attempt(Recorded(account("initech")), presenter)
        await attempt(Recorded(account(), claims={"exp_": "odd", "aud": "elsewhere"}), presenter)
        await attempt(Recorded(account()), presenter, GatewaySettings())
    await attempt(Recorded(account()), Shown(refusals=2))
    for field in ({"private_key": private_pem("acme")[:900]}, {"tenant_id": private_pem("acme")}, {"private_key": 1}):
        await attempt(write_account(tmp_path / "account.json", **field), "first_stream")
    await attempt((tmp_path / "account.json").read_text(), "none")

    assert len(errors) > 10
    assert len(everything_logged) > 50
    assert any("a token was refused" in line for line in everything_logged)
    text = "\n".join([*everything_logged, *map(spelled_out, errors), *shown])
    secrets = [line for tenant in ("acme", "initech") for line in private_pem(tenant).splitlines()[1:-1]]
    secrets += [part for token in made for part in token.split(".")]
    assert len(made) > 10
    # Whatever shows 24 characters of a secret shows one of these pieces.
    pieces = {secret[start : start + 16] for secret in secrets for start in range(0, len(secret) - 15, 8)}
    assert [piece for piece in pieces if piece in text] == []


@pytest.mark.parametrize("slot", ["tenant_id", "template_tenant_id", "auth_token"])
def test_a_message_does_not_show_its_token(slot: str) -> None:
    token = TokenSource(account()).token(time.time())
    for cls in messages.MESSAGES.values():
        if any(field.name == slot for field in cls.__attrs_attrs__):
            assert token not in repr(cls(**{slot: token}))
            assert token[:20] not in repr(cls(**{slot: token}))
