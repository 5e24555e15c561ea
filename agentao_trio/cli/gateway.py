"""``agentao-trio gateway``: the embedded gateway for other programs, with a log of its calls."""

from __future__ import annotations

import contextlib
import logging
import shlex
from pathlib import Path
from typing import Literal

import attrs
import trio
from rich.table import Table

from agentao_trio.cli.callers import Callers, Pace
from agentao_trio.cli.console import Console, standard_input
from agentao_trio.cli.naming import named
from agentao_trio.cli.running import UsageError, about
from agentao_trio.cli.screen import Screen, bare_table
from agentao_trio.credentials import TokenVerifier, TrustedKey
from agentao_trio.gateway import FAR_ENDS, GatewaySettings, open_gateway
from agentao_trio.gateway.faults import FAULTS, describe

__all__ = ["GatewayOptions", "far_ends", "fault_table", "serve"]


@attrs.frozen(kw_only=True)
class GatewayOptions:
    """What was asked for."""

    host: str
    port: int
    names: tuple[str, ...]
    ca_file: Path
    rpc_reply: Literal["framed", "bare", "none"]
    #: Whose tokens are good; where there are none, tokens are not looked at.
    trusted: tuple[TrustedKey, ...]
    require_token: bool
    #: Inbound calls: how often, on which trunk, from which far ends in turn.
    inbound: Pace | None
    trunk: str
    callers: tuple[str, ...]
    #: Rules to break, by name; and the seed of behaviour that is legal and unusual.
    faults: tuple[str, ...] = ()
    fuzz: int | None = None

    def settings(self) -> GatewaySettings:
        """How the gateway is to behave. Raises :class:`UsageError` for a fault that does not exist."""
        if unknown := [name for name in self.faults if name not in FAULTS]:
            raise UsageError(f"--fault: there is no fault {', '.join(unknown)}; see agentao-trio gateway --faults")
        if not self.trusted:
            return GatewaySettings(reply=self.rpc_reply, faults=self.faults, fuzz=self.fuzz)
        return GatewaySettings(
            reply=self.rpc_reply,
            faults=self.faults,
            fuzz=self.fuzz,
            verifier=TokenVerifier(self.trusted),
            authentication="required" if self.require_token else "open",
            # Whose trunks ring: nobody is the default tenant where everybody has to say who they are.
            tenant=self.trusted[0].tenant_id if self.require_token else "default",
        )


class _CallLog(logging.Handler):
    """What the gateway logs about its calls, as lines on the screen."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.INFO)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.note(record.getMessage())


async def serve(options: GatewayOptions, screen: Screen) -> None:
    """Run the gateway until cancelled, or told to quit on its console.

    Raises :class:`UsageError` for a file that cannot be written, and OSError.
    """
    log = logging.getLogger("agentao_trio.gateway")
    handler = _CallLog(screen)
    async with contextlib.AsyncExitStack() as stack:
        try:
            gateway = await stack.enter_async_context(
                open_gateway(
                    host=options.host,
                    port=options.port,
                    names=options.names,
                    settings=options.settings(),
                )
            )
        except OSError as error:
            where = f"UDP port {options.port} of {options.host}"
            raise OSError(f"cannot listen on {where}: {error.strerror or error}; --port 0 takes a free one") from None
        except ValueError as error:
            raise UsageError(f"no certificate can be made for that --name: {error}") from None
        with about("--ca-file"), named(options.ca_file):
            options.ca_file.write_bytes(gateway.ca_pem)
        ca = shlex.quote(str(options.ca_file))
        screen.say(f"Listening on {gateway.endpoint}; its certificate authority is in {options.ca_file}. Call it:")
        shown = " --credentials ACCOUNT.json --presenter first_stream" if options.require_token else ""
        screen.say(f"  agentao-trio call +15550100001 --gateway {gateway.endpoint} --ca {ca}{shown}")
        callers = Callers(gateway, trunk=options.trunk, far_ends=options.callers, pace=options.inbound)
        if options.inbound is not None:
            screen.say(f"There are {callers}.")
        commands = standard_input()
        if commands is None:
            screen.say("Ctrl-C ends it. Who answers which number: agentao-trio gateway --numbers")
        else:
            screen.say("Ctrl-C ends it. Commands can be typed here: help tells which there are.")
        log.addHandler(handler)
        stack.callback(log.removeHandler, handler)
        log.setLevel(logging.INFO)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(callers.run)
            if commands is None:
                await trio.sleep_forever()
            else:
                await Console(gateway, callers, screen, far_ends).run(commands)
            nursery.cancel_scope.cancel()


def far_ends() -> Table:
    """Who answers which number."""
    table = bare_table()
    table.add_column("Number", no_wrap=True)
    table.add_column("or sip:…@any", no_wrap=True)
    table.add_column("What happens")
    for far_end in FAR_ENDS:
        table.add_row(far_end.number, far_end.name, far_end.happens)
    return table


def fault_table() -> Table:
    """The rules that the gateway can break on request."""
    table = bare_table()
    table.add_column("Fault", no_wrap=True)
    table.add_column("What is wrong")
    for name in sorted(FAULTS):
        table.add_row(name, describe(name))
    return table
