"""``agentao-trio gateway``: the embedded gateway for other programs, with a log of its calls."""

from __future__ import annotations

import contextlib
import logging
import shlex
from pathlib import Path
from typing import Literal

import attrs
import trio
from rich import box
from rich.table import Table

from agentao_trio.cli.running import UsageError
from agentao_trio.cli.screen import Screen
from agentao_trio.gateway import FAR_ENDS, GatewaySettings, open_gateway

__all__ = ["GatewayOptions", "far_ends", "serve"]


@attrs.frozen(kw_only=True)
class GatewayOptions:
    """What was asked for."""

    host: str
    port: int
    names: tuple[str, ...]
    ca_file: Path
    rpc_reply: Literal["framed", "bare", "none"]


class _CallLog(logging.Handler):
    """What the gateway logs about its calls, as lines on the screen."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.INFO)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.note(record.getMessage())


async def serve(options: GatewayOptions, screen: Screen) -> None:
    """Run the gateway until cancelled. Raises :class:`UsageError` for a file that cannot be written, and OSError."""
    log = logging.getLogger("agentao_trio.gateway")
    handler = _CallLog(screen)
    async with contextlib.AsyncExitStack() as stack:
        try:
            gateway = await stack.enter_async_context(
                open_gateway(
                    host=options.host,
                    port=options.port,
                    names=options.names,
                    settings=GatewaySettings(reply=options.rpc_reply),
                )
            )
        except OSError as error:
            where = f"UDP port {options.port} of {options.host}"
            raise OSError(f"cannot listen on {where}: {error.strerror or error}; --port 0 takes a free one") from None
        _write(options.ca_file, gateway.ca_pem)
        ca = shlex.quote(str(options.ca_file))
        screen.say(f"Listening on {gateway.endpoint}; its certificate authority is in {options.ca_file}. Call it:")
        screen.say(f"  agentao-trio call +15550100001 --gateway {gateway.endpoint} --ca {ca}")
        screen.say("Ctrl-C ends it. Who answers which number: agentao-trio gateway --numbers")
        log.addHandler(handler)
        stack.callback(log.removeHandler, handler)
        log.setLevel(logging.INFO)
        await trio.sleep_forever()


def _write(path: Path, pem: bytes) -> None:
    try:
        path.write_bytes(pem)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}; see --ca-file") from None


def far_ends() -> Table:
    """Who answers which number."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Number", no_wrap=True)
    table.add_column("or sip:…@any", no_wrap=True)
    table.add_column("What happens")
    for far_end in FAR_ENDS:
        table.add_row(far_end.number, far_end.name, far_end.happens)
    return table
