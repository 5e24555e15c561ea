"""One method per RPC of the protocol (PROTOCOL sections 7 to 9 and 13), for what is not bound to a call in progress.

Every method raises :class:`CommandRejected` when the gateway refuses, :class:`CommandTimeout` when it does not answer
(the outcome is unknown), :class:`LocalProtocolError` for an argument the protocol does not allow (nothing is sent) and
:class:`SessionClosed`. Cancelled, a command may or may not have been carried out.
"""

from __future__ import annotations

import abc
import contextlib
from typing import Any, Protocol

from agentao_trio import dialplan, messages
from agentao_trio.errors import (
    AgentaoError,
    CommandError,
    CommandRejected,
    CommandTimeout,
    LocalProtocolError,
    RemoteProtocolError,
    SessionClosed,
)
from agentao_trio.legible import legible, quoted
from agentao_trio.messages import DialplanAction, InboundRule, MethodId

__all__ = ["Commands", "Observer"]

#: How a status begins that is a refusal, in a reply without an error code.
_NO = ("FAILED", "ERR", "REJECTED")


class Observer(Protocol):
    """Follows the calls and commands of a session, as :mod:`agentao_trio.tracing` does. It must not wait or raise."""

    def call_began(self, call: Any) -> str:
        """A call was placed, or has come in. Returns its ``traceparent`` (W3C Trace Context), or nothing."""

    def command(self, method: MethodId, message: Any) -> contextlib.AbstractContextManager[object]:
        """What to be within while a command is sent and answered."""


class Commands(abc.ABC):
    """The RPCs of a gateway, over whatever carries them.

    All of them raise what :meth:`request` raises, and like it may have been carried out when they are cancelled.
    """

    #: Who follows the calls and commands. To be added before the first call.
    observers: list[Observer]

    async def request(self, method: MethodId, message: Any) -> Any:
        """Send one RPC on a stream of its own and return the decoded reply, None where the gateway sent none.

        Waits while the session is reconnecting. Refused for its token, it is sent once more with a new one. The
        session's ``rpc_timeout`` covers all of it. Raises :class:`CommandRejected` for an error code in the reply or a
        reset stream, :class:`CommandTimeout` when there is no answer in time (the outcome is unknown),
        :class:`RemoteProtocolError` for an answer that is not one, and :class:`SessionClosed`. Cancelled, the stream is
        abandoned; the command may have been carried out.
        """
        with contextlib.ExitStack() as observed:
            for observer in self.observers:
                observed.enter_context(observer.command(method, message))
            return await self._request(method, message)

    @abc.abstractmethod
    async def _request(self, method: MethodId, message: Any) -> Any:
        """:meth:`request`, unobserved."""

    async def _query(self, method: MethodId, message: Any) -> Any:
        """A request whose reply is the point of it."""
        reply = await self.request(method, message)
        if reply is None:
            raise CommandTimeout(f"the gateway finished {method.name} without a reply", method=method.name)
        return reply

    # -- calls ----------------------------------------------------------------------------------------------------

    async def terminate(self, call_sid: str) -> None:
        """End any call by name; CHANNEL_HANGUP_COMPLETE confirms it."""
        await self.request(MethodId.Terminate, messages.TerminateRequest(call_sid=call_sid))

    async def _try_to_terminate(self, call_sid: str) -> AgentaoError | None:
        """As :meth:`terminate`, but what went wrong is returned."""
        try:
            await self.terminate(call_sid)
        except (CommandError, RemoteProtocolError, SessionClosed) as error:
            return error
        return None

    async def barge(self, call_sid: str) -> None:
        """Interrupt what the gateway's AI or playback is saying on a call."""
        await self.request(MethodId.Barge, messages.BargeRequest(call_sid=call_sid))

    async def execute_dialplan(self, call_sid: str, action: DialplanAction, app_args: str = "") -> None:
        """Apply a dialplan action to a live call; ``app_args`` is checked against PROTOCOL section 9.2 first."""
        dialplan.check_arguments(action, app_args)
        await self.request(
            MethodId.ExecuteDialplan,
            messages.ExecuteDialplanRequest(call_sid=call_sid, action=action, app_args=app_args),
        )

    # -- inbound --------------------------------------------------------------------------------------------------

    async def set_inbound_routing(
        self,
        trunk_id: str,
        rule: InboundRule,
        *,
        audio_url: str = "",
        webhook_url: str = "",
        ai_websocket_url: str = "",
        ai_quic_url: str = "",
    ) -> None:
        """Say what happens to the calls that come in on a trunk.

        REJECT takes no URL, PLAY_AND_HANGUP needs ``audio_url`` and NOTIFY_AND_HANGUP ``webhook_url``; HANDLE_AI may
        have either of the AI URLs, or none for calls this program answers itself.
        """
        if rule == InboundRule.PLAY_AND_HANGUP and not audio_url:
            raise LocalProtocolError("PLAY_AND_HANGUP needs an audio_url")
        if rule == InboundRule.NOTIFY_AND_HANGUP and not webhook_url:
            raise LocalProtocolError("NOTIFY_AND_HANGUP needs a webhook_url")
        await self.request(
            MethodId.SetInboundRouting,
            messages.SetInboundRoutingRequest(
                trunk_id=trunk_id,
                rule=rule,
                audio_url=audio_url,
                webhook_url=webhook_url,
                ai_websocket_url=ai_websocket_url,
                ai_quic_url=ai_quic_url,
            ),
        )

    async def get_incoming_calls(self, trunk_id: str) -> tuple[messages.IncomingCallInfo, ...]:
        """The calls that wait on a trunk to be answered."""
        reply = await self._query(MethodId.GetIncomingCalls, messages.GetIncomingCallsRequest(trunk_id=trunk_id))
        return tuple(reply.calls)

    async def answer_incoming_call(self, call_sid: str, *, ai_websocket_url: str = "", ai_quic_url: str = "") -> None:
        """Accept a waiting call by name, bridging it to a URL where one is given."""
        await self.request(
            MethodId.AnswerIncomingCall,
            messages.AnswerIncomingCallRequest(
                call_sid=call_sid, ai_websocket_url=ai_websocket_url, ai_quic_url=ai_quic_url
            ),
        )

    # -- campaigns and buckets --------------------------------------------------------------------------------------

    async def originate_bulk(
        self,
        csv_url: str,
        *,
        trunk_id: str,
        calls_per_second: int,
        max_concurrent_calls: int,
        campaign_id: str,
        to: str = "",
        call_from: str = "",
        default_app: DialplanAction = DialplanAction.AI_BIDIRECTIONAL_STREAM,
        default_app_args: str = "",
        ai_websocket_url: str = "",
        ai_quic_url: str = "",
        max_duration_ms: int = 0,
        tenant_id: str = "",
    ) -> messages.BulkResponse:
        """Let the gateway fetch a list of numbers and call them; each row fills the template given here.

        The gateway starts ``calls_per_second`` and keeps at most ``max_concurrent_calls`` going. The reply says how
        many rows it took; :meth:`Session.events` tells of the calls.
        """
        _check_count("calls_per_second", calls_per_second)
        _check_count("max_concurrent_calls", max_concurrent_calls)
        dialplan.check_default_app(default_app, default_app_args)
        return await self._bulk(
            MethodId.OriginateBulk,
            messages.BulkRequest(
                csv_url=csv_url,
                template_trunk_id=trunk_id,
                template_to=to,
                template_call_from=call_from,
                template_ai_websocket_url=ai_websocket_url,
                template_ai_quic_url=ai_quic_url,
                template_tenant_id=tenant_id,
                template_max_duration_ms=max_duration_ms,
                template_default_app=default_app,
                template_default_app_args=default_app_args,
                calls_per_second=calls_per_second,
                max_concurrent_calls=max_concurrent_calls,
                campaign_id=campaign_id,
            ),
        )

    async def abort_bulk(self, campaign_id: str) -> messages.BulkResponse:
        """Drop the rows of a campaign that have not been called yet; calls in progress go on."""
        return await self._bulk(MethodId.AbortBulk, messages.AbortBulkRequest(campaign_id=campaign_id))

    async def _bulk(self, method: MethodId, message: Any) -> messages.BulkResponse:
        reply: messages.BulkResponse = await self._query(method, message)
        # Its status is all that this reply has to say no with (PROTOCOL section 12).
        if reply.status.upper().startswith(_NO):
            raise CommandRejected(f"{method.name} was refused: {legible(reply.status)}", method=method.name)
        return reply

    async def get_active_buckets(self) -> tuple[messages.BucketInfo, ...]:
        """The queues of pending calls and how many wait in each."""
        reply = await self._query(MethodId.GetActiveBuckets, messages.Empty())
        return tuple(reply.buckets)

    async def get_bucket_calls(self, bucket_id: str) -> tuple[str, ...]:
        """The sids of the calls that wait in a bucket."""
        reply = await self._query(MethodId.GetBucketCalls, messages.BucketRequest(bucket_id=bucket_id))
        # One string on the wire; its separator is not specified, a comma is assumed (PROTOCOL section 7).
        return tuple(sid.strip() for sid in reply.call_sids.split(",") if sid.strip())

    async def execute_bucket_action(self, bucket_id: str, action: int) -> int:
        """Apply an action to a bucket and return how many calls it touched. The gateway defines the numbers."""
        reply = await self._query(
            MethodId.ExecuteBucketAction, messages.BucketActionRequest(bucket_id=bucket_id, action=action)
        )
        return int(reply.processed_count)


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or value < 1:
        raise LocalProtocolError(f"{name} is {quoted(str(value))}; expected a whole number, 1 or more")
