"""Programs that share no line with this package, over real UDP and TLS: their client, our gateway, and the reverse."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import wave
from pathlib import Path

import trio
import trustme

from agentao_trio.gateway import open_gateway

SUPPORT = Path(__file__).parents[1] / "support" / "foreign"
SPEECH = Path(__file__).parents[2] / "agentao_trio" / "assets" / "speech.wav"


async def test_a_client_written_elsewhere_is_served(tmp_path: Path) -> None:
    async with open_gateway() as gateway:
        ca_file = trio.Path(tmp_path / "ca.pem")
        await ca_file.write_bytes(gateway.ca_pem)
        port = gateway.endpoint.rpartition(":")[2]
        command = [sys.executable, str(SUPPORT / "client.py"), "127.0.0.1", port, str(ca_file)]
        with trio.fail_after(300):
            finished = await trio.run_process(command, capture_stdout=True)
        assert gateway.statistics().model.calls_open == 0
    assert json.loads(finished.stdout) == [{"events": [1, 2, 3], "packets": 25, "own": True}] * 2


async def test_the_command_line_calls_a_gateway_written_elsewhere(tmp_path: Path) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "leaf.pem"))
    leaf.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    serve = [sys.executable, str(SUPPORT / "gateway.py"), str(tmp_path / "leaf.pem"), str(tmp_path / "key.pem")]
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            functools.partial(trio.run_process, serve, stdout=subprocess.PIPE, check=False)
        )
        assert process.stdout is not None
        port = int(await process.stdout.receive_some())
        command = [sys.executable, "-m", "agentao_trio", "call", "+15550100001"]
        command += ["--gateway", f"quic://127.0.0.1:{port}", "--ca", str(tmp_path / "ca.pem")]
        command += ["--play", str(SPEECH), "--record", str(tmp_path / "heard.wav")]
        with trio.fail_after(300):
            finished = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        process.terminate()
    assert finished.returncode == 0, finished.stderr.decode()
    with wave.open(str(tmp_path / "heard.wav")) as heard, wave.open(str(SPEECH)) as said:
        assert heard.getframerate() == 8000
        # The echo of all that was said, but for what was still under way at the end.
        assert heard.getnframes() >= said.getnframes() - 8000
