# ruff: noqa: T201, S603 - a program of a terminal, which starts the command that it looks at
"""What .ci/packages asks of the wheel and the sdist, and of an install, whose own Python runs this.

package_checks.py contents DIST TREE     the files of wheel and sdist are those of the tree, and what goes with them
package_checks.py bounds PYPROJECT       the oldest dependencies that are admitted, as constraints
package_checks.py installed [EXTRA]      what is installed, bare, with one extra or "all", works, and says what it lacks
"""

from __future__ import annotations

import email
import importlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import traceback
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

PACKAGE = "agentao_trio"
EXTRAS = frozenset({"audio", "realtime", "live", "conformance", "metrics", "redis", "analysis"})
COMMAND = Path(sys.executable).with_name("agentao-trio")
#: Far ends of the embedded gateway.
ECHO, HANGS_UP = "+15550100001", "+15550100016"


def check(holds: object, otherwise: str) -> None:
    if not holds:
        raise SystemExit(f"not as it has to be: {otherwise}")


# -- wheel and sdist ------------------------------------------------------------------------------------------------


def contents(dist: Path, tree: Path) -> None:
    """Raise SystemExit for a file too many or too few."""
    there = {path.relative_to(tree).as_posix(): path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    [sdist], [wheel] = dist.glob("*.tar.gz"), dist.glob("*.whl")
    with tarfile.open(sdist) as archive:
        told = {each.name.partition("/")[2]: archive.extractfile(each) for each in archive if each.isfile()}
        source = {name: file.read() for name, file in told.items() if file is not None}
    check(source.pop("PKG-INFO", b""), "the sdist has no PKG-INFO")
    differ(source, there, "the sdist", "the tree")
    for name in ("LICENSE", "LICENSE-MIT", "LICENSE-APACHE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"):
        check(name in source, f"the sdist lacks {name}")
    check(any(name.startswith("tests/") for name in source), "the sdist lacks its tests")

    with zipfile.ZipFile(wheel) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    about = {name.partition("/")[2]: files.pop(name) for name in list(files) if ".dist-info/" in name}
    ours = {name: content for name, content in there.items() if name.startswith(f"{PACKAGE}/")}
    differ(files, ours, "the wheel", f"{PACKAGE} in the tree")
    for name in ("py.typed", "assets/speech.wav", "cli/voices/where.wav", "realtime/assets/greeting.wav"):
        check(f"{PACKAGE}/{name}" in files, f"the wheel lacks {name}")
    page = files[f"{PACKAGE}/live/page/index.html"].decode()
    for name in re.findall(r'(?:src|href)="/?([\w.-]+)"', page):
        check(f"{PACKAGE}/live/page/{name}" in files, f"the wheel lacks {name}, which the page refers to")
    for name in ("LICENSE", "LICENSE-MIT", "LICENSE-APACHE"):
        check(f"licenses/{name}" in about, f"the wheel lacks {name}")
    check(b"agentao-trio = agentao_trio.cli:main" in about["entry_points.txt"], "the wheel brings no command")
    metadata = email.message_from_bytes(about["METADATA"])
    check(metadata["License-Expression"] and metadata["Requires-Python"], "the metadata has no licence or no Python")
    check("# agentao" in str(metadata.get_payload()), "the metadata has no README")
    check(set(metadata.get_all("Provides-Extra", [])) >= EXTRAS | {"all"}, "the metadata lacks extras")


def differ(these: dict[str, bytes], those: dict[str, bytes], here: str, elsewhere: str) -> None:
    check(not (gone := those.keys() - these.keys()), f"{here} lacks {sorted(gone)}")
    check(not (more := these.keys() - those.keys()), f"{here} has {sorted(more)}, and {elsewhere} has not")
    check(not (other := [name for name in these if these[name] != those[name]]), f"{other} differ in {here}")


def bounds(pyproject: Path) -> None:
    """Print the lower bounds as constraints, also of what another dependency would have newer."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    lines = list(project["dependencies"])
    for extra in EXTRAS:
        lines += project["optional-dependencies"][extra]
    for line in sorted(set(lines)):
        found = re.match(r"([\w.-]+)>=([\d.]+)", line)
        check(found, f"{line} has no lower bound")
        if found:
            print(f"{found[1]}=={found[2]}.*")


# -- an install -----------------------------------------------------------------------------------------------------


def installed(extra: str) -> None:
    """Hold an install, bare or with an extra, against what it has to do, and to say."""
    extras = EXTRAS if extra == "all" else frozenset(filter(None, [extra]))
    shown(subprocess.run([COMMAND, "--version"], capture_output=True, text=True, timeout=60), "agentao-trio 0")
    shown(subprocess.run([sys.executable, "-P", "-m", PACKAGE], capture_output=True, text=True, timeout=60), "Usage:")
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        modules(extras)
        helps()
        expect(in_child(history), "a history file")
        explained(extras)
        WORKS[extra]()
        os.chdir("/")
    left = sorted(path.name for path in Path.home().iterdir())
    check(not left, f"something is left in the home directory: {left}")


def modules(extras: frozenset[str]) -> None:
    """Every public module can be imported, or names an extra that is not there."""

    def look() -> None:
        root = Path(importlib.import_module(PACKAGE).__file__ or "").parent
        for path in sorted(root.rglob("*.py")):
            parts = [PACKAGE, *path.relative_to(root).with_suffix("").parts]
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            # pytest's plugin is for pytest to import.
            if any(part.startswith("_") for part in parts[:-1]) or parts[-1] == "__main__" or name.endswith(".plugin"):
                continue
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as missing:
                names_an_extra(str(missing), EXTRAS - extras, name)

    expect(in_child(look), "importing the modules")


def names_an_extra(text: str, missing: frozenset[str], where: str) -> None:
    found = re.search(r"needs the extras? '.*: pip install 'agentao-trio\[([a-z,]+)\]'", text)
    check(found and missing & set(found[1].split(",")), f"{where} says {text!r}, and lacks {sorted(missing)}")


def helps() -> None:
    """Every command explains itself, at any depth."""
    from agentao_trio.cli import app

    def below(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield path
        for name in command:
            if not name.startswith("-"):
                yield from below(command[name], (*path, name))

    found = list(below(app, ()))
    check(len(found) > 15, f"there are only {len(found)} commands")
    for path in found:
        status, out, _ = run(*path, "--help")
        check(status == 0 and "Usage: agentao-trio" in out, f"{' '.join(path)} --help: {status}, {out[:200]}")


#: Commands, and the extras that they need.
NEEDS: list[tuple[str, str]] = [
    ("agent", "realtime"),
    ("agent --live 0", "realtime live"),
    ("agent --gateway quic://127.0.0.1:9 --fleet redis://127.0.0.1", "realtime redis"),
    ("conformance simulated", "conformance"),
    ("demo --live --no-browser --port 0", "live realtime"),
    ("history export calls.db --format parquet --out calls.parquet", "analysis"),
    ("history judge calls.db", "conformance"),
    ("history replay calls.db a-call --live 0", "live"),
    ("live calls.db --port 0", "live"),
]


def explained(extras: frozenset[str]) -> None:
    """What needs an extra that is not there says so in one line."""
    for line, needed in NEEDS:
        missing = frozenset(needed.split()) - extras
        if missing:
            status, out, err = run(*line.split())
            check((status, out, err.count("\n")) == (2, "", 1), f"{line}: status {status}\n{out}{err}")
            check(err.startswith("error: "), f"{line}: {err}")
            names_an_extra(err, missing, line)
    if "audio" not in extras:
        status, _, err = in_child(another_rate)
        check(status == 1, "another rate needs no extra")
        names_an_extra(err.splitlines()[-1], frozenset({"audio"}), "another rate")


# -- what each is for ------------------------------------------------------------------------------------------------


def works_bare() -> None:
    shown(run("demo", "--calls", "2", "--seconds", "1", "--record", "recordings"), "Everything is as it has to be.")
    check(sorted(path.suffix for path in Path("recordings").iterdir()) == [".wav", ".wav"], "no recordings")
    shown(run("history", "list", "calls.db"), "completed")
    shown(run("history", "stats", "calls.db"), "1 calls")
    shown(run("history", "report", "calls.db", "--out", "calls.html"), "wrote calls.html")
    check("<svg" in Path("calls.html").read_text(encoding="utf-8"), "the report has no plot")


def another_rate() -> None:
    """A call whose audio is spoken and heard at 16 kHz."""
    import trio

    from agentao_trio import open_session
    from agentao_trio.gateway import open_gateway

    async def main() -> None:
        async with (
            open_gateway() as gateway,
            open_session(gateway.endpoint, tls=gateway.tls) as session,
            await session.originate(ECHO, trunk_id="main") as call,
        ):
            await call.wait_answered()
            await call.send_audio(bytes(2 * 16_000), rate=16_000)
            heard = 0
            async for frame in call.audio(rate=16_000):
                heard += len(frame.payload)
                if heard > 16_000:
                    break

    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


def history() -> None:
    """A call that is over, in calls.db, under the name of a-call."""
    import trio

    from agentao_trio import open_session
    from agentao_trio.gateway import open_gateway
    from agentao_trio.store import open_store

    async def main() -> None:
        async with (
            open_gateway() as gateway,
            open_session(gateway.endpoint, tls=gateway.tls) as session,
            open_store("calls.db") as store,
        ):
            store.attach(session.hub)
            async with await session.originate(HANGS_UP, trunk_id="main", call_sid="a-call") as call:
                await call.wait_ended()
            await store.flush()

    trio.run(main)


def works_audio() -> None:
    expect(in_child(another_rate), "another rate")


def works_realtime() -> None:
    shown(run("agent", "--model", "simulated", "--callers", "1", "--history", "agent.db", seconds=90), "agent: ")
    shown(run("history", "stats", "agent.db"), "1 calls (1 inbound")


def works_live() -> None:
    with started("live", "calls.db", "--port", "0") as url:
        page = urlopen(url, timeout=10).read().decode()  # noqa: S310 - it is ours
        for name in ("", *re.findall(r'(?:src|href)="/?([\w.-]+)"', page)):
            with urlopen(url + name, timeout=10) as answer:  # noqa: S310
                check(answer.status == 200 and answer.read(), f"the page lacks {name}")


def works_conformance() -> None:
    shown(run("conformance", "simulated", "--only", "RPC", "--level", "must", "--seed", "1", seconds=90), "RPC-01")
    shown(run("history", "judge", "calls.db"), "pass")


def works_metrics() -> None:
    def expose() -> None:
        import trio
        from prometheus_client import CollectorRegistry, generate_latest

        from agentao_trio import open_session
        from agentao_trio.gateway import open_gateway
        from agentao_trio.metrics import SessionCollector
        from agentao_trio.tracing import trace

        async def main() -> None:
            async with (
                open_gateway() as gateway,
                open_session(gateway.endpoint, tls=gateway.tls, client_id="me") as session,
            ):
                trace(session)
                registry = CollectorRegistry()
                registry.register(SessionCollector(session))
                async with await session.originate(HANGS_UP, trunk_id="main") as call:
                    await call.wait_ended()
                print(generate_latest(registry).decode())

        trio.run(main)

    shown(in_child(expose), 'agentao_session_connected{client_id="me"} 1.0')


def works_redis() -> None:
    server = shutil.which("redis-server")
    if server is None:
        print("no redis-server here: the modules are imported, and no more")
        return
    port = free_port()

    def share() -> None:
        import trio

        from agentao_trio.fleet import open_fleet

        async def main() -> None:
            async with open_fleet(f"redis://127.0.0.1:{port}") as fleet:
                print(fleet.statistics())

        trio.run(main)

    command = [server, "--port", str(port), "--save", "", "--bind", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(port)
            shown(in_child(share), "Statistics(")
        finally:
            process.terminate()


def works_analysis() -> None:
    expect(
        run("history", "export", "calls.db", "--format", "parquet", "--what", "calls", "--out", "calls.parquet"),
        "export",
    )

    def read() -> None:
        import pyarrow.parquet

        print(pyarrow.parquet.read_table("calls.parquet").to_pylist())

    shown(in_child(read), "'call_sid': 'a-call'")


def works_all() -> None:
    """What takes several extras; each by itself has been seen to work."""
    arguments = ("--callers", "1", "--live", "0", "--record", "recordings", "--history", "agent.db")
    shown(run("agent", *arguments, seconds=90), "live calls: http://127.0.0.1:")
    check(list(Path("recordings").glob("*.wav")), "no recording")
    with (
        started("demo", "--live", "--no-browser", "--port", "0") as url,
        urlopen(url, timeout=10) as answer,  # noqa: S310
    ):
        check(answer.status == 200, "no page")


WORKS: dict[str, Callable[[], None]] = {
    "": works_bare,
    "all": works_all,
    "audio": works_audio,
    "realtime": works_realtime,
    "live": works_live,
    "conformance": works_conformance,
    "metrics": works_metrics,
    "redis": works_redis,
    "analysis": works_analysis,
}


# -- commands and programs --------------------------------------------------------------------------------------------

Result = tuple[int, str, str]


def run(*arguments: str, seconds: float = 60) -> Result:
    """What the console script does, its status and what it says: without starting Python anew each time."""

    def command() -> None:
        from agentao_trio.cli import main

        sys.argv = ["agentao-trio", *arguments]
        main()

    return in_child(command, seconds=seconds)


def in_child(function: Callable[[], None], *, seconds: float = 60) -> Result:
    """Do something in a process of its own; its status, and what it says on both."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                signal.alarm(round(seconds))
                function()
                status = 0
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
                if isinstance(end.code, str):
                    print(end.code, file=sys.stderr)
            except BaseException:  # noqa: BLE001 - this process ends here, whatever it was
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        return status, out.read().decode(), err.read().decode()


def expect(result: Result, what: str) -> str:
    """What it said. SystemExit where it failed."""
    status, out, err = result
    check(status == 0, f"{what}: status {status}\n{out}{err}")
    check("Traceback" not in out + err, f"{what}: {out}{err}")
    return out


def shown(result: Result | subprocess.CompletedProcess[str], text: str) -> None:
    if isinstance(result, subprocess.CompletedProcess):
        result = (result.returncode, result.stdout, result.stderr)
    out = expect(result, f"showing {text!r}")
    check(text in out, f"{text!r} is not in\n{out}")


@contextmanager
def started(*arguments: str) -> Iterator[str]:
    """A command that serves a page until it is ended: its address."""
    command = [COMMAND, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        try:
            found = re.search(r"http://\S+/", said)
            check(found, "no address")
            yield found[0] if found else ""
        except (SystemExit, OSError) as error:
            process.terminate()
            raise SystemExit(f"{' '.join(arguments)}: {error}; it said\n{said}{process.stdout.read()}") from None
        process.terminate()
        said += process.stdout.read()
        status = process.wait(timeout=30)
    check(status == 0, f"{' '.join(arguments)} ended with {status}; it said\n{said}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(port: int) -> None:
    for _ in range(100):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit(f"nothing listens on port {port}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["contents", dist, tree]:
            contents(Path(dist), Path(tree))
        case ["bounds", pyproject]:
            bounds(Path(pyproject))
        case ["installed", *extras]:
            installed("".join(extras))
        case _:
            raise SystemExit(__doc__)
