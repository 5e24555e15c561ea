"""``agentao-trio conformance``: judge a gateway, rule by rule.

The judging itself is in :mod:`agentao_trio.cli.judging`, which needs an extra.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import attrs
from cyclopts import App, Parameter, validators
from cyclopts.types import ExistingFile

from agentao_trio.cli.running import report_error

__all__ = ["ConformanceOptions", "conformance_app"]

conformance_app: App = App(
    name="conformance",
    help_epilogue="""\
**Examples**

- `agentao-trio conformance simulated`
- `agentao-trio conformance quic://127.0.0.1:9090 --profile target.toml --allow-dial --junit results.xml`
- `agentao-trio conformance simulated --only EVT,RPL-07 --seed 5`
- `agentao-trio conformance --list`

**Exit status:** 0 no MUST fails and at least one passes; 1 a MUST fails; 2 wrong usage or profile; 3 unreachable;
4 nothing was concluded; 5 stopped by a limit; 70 the kit is at fault; 130 interrupted, after hanging up""",
)

OptionalFile = Annotated[Path | None, Parameter(show_default=False)]


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class ConformanceOptions:
    """What to run, against what, and where the results go."""

    profile: Annotated[ExistingFile | None, Parameter(show_default=False)] = None
    """TOML file that describes the target: trust, trunk, credentials, destinations by role, capabilities."""
    only: Annotated[str, Parameter(show_default=False)] = ""
    """Checks and sections, between commas: EVT,RPL-07."""
    level: Literal["must", "should", "all"] = "all"
    """Which rules: only MUST; MUST and SHOULD; all, with what is merely reported."""
    allow_dial: Annotated[bool, Parameter(negative="")] = False
    """Place calls, to the profile's destinations and nowhere else. Not needed for the simulated target."""
    slow: Annotated[bool, Parameter(negative="")] = False
    """Also checks that wait for minutes."""
    hostile: Annotated[bool, Parameter(negative="")] = False
    """Also checks that send what no client should."""
    seed: Annotated[int | None, Parameter(show_default=False)] = None
    """Everything random comes of it; a new one each time, and shown, where it is left out."""
    max_calls: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 200
    """Calls in the whole run; 0 is no limit."""
    rate: Annotated[str, Parameter()] = "2/s"
    """How often to call: 2/s, 30/minute; 0/s is no limit."""
    concurrency: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=100))] = 8
    """Checks and calls at a time."""
    budget: Annotated[str, Parameter()] = "10m"
    """How long the run may take: 90s, 10m, 1h."""
    repeat: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=9))] = 3
    """Runs of a check that seems to fail; two of them have to."""
    examples: Annotated[int | None, Parameter(show_default=False, validator=validators.Number(gte=1, lte=1000))] = None
    """Examples of a property; 5 against a gateway, 4 simulated."""
    out: OptionalFile = None
    """Directory for everything: report.json, junit.xml, report.html, a replay file and a trace per failing check."""
    json: OptionalFile = None
    """File for the results as JSON."""
    junit: OptionalFile = None
    """File for the results as JUnit's XML."""
    html: OptionalFile = None
    """File for a page with a timeline of each failing check."""
    keylog: OptionalFile = None
    """File for TLS secrets, to decrypt a packet capture with."""
    qlog: OptionalFile = None
    """Directory for a qlog of each connection."""
    waive: Annotated[ExistingFile | None, Parameter(show_default=False)] = None
    """TOML file of rules whose failure is known: EVT-05 = "the reason". They stay visible."""
    replay: Annotated[ExistingFile | None, Parameter(show_default=False)] = None
    """Run one check again as a replay file says."""
    list: Annotated[bool, Parameter(negative="")] = False
    """Say which checks there are, and do nothing else."""
    dry_run: Annotated[bool, Parameter(negative="")] = False
    """Say what would be run, and do nothing else."""
    i_own_this_target: Annotated[bool, Parameter(negative="")] = False
    """Needed for a target at a public address."""
    loss: Annotated[float, Parameter(validator=validators.Number(gte=0, lte=0.5))] = 0.0
    """For the simulated target: the share of datagrams that get lost."""
    fault: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = ()
    """For the simulated target: a fault of the embedded gateway, by name; may be given several times."""


@conformance_app.default
def conformance_command(
    target: str = "",
    /,
    *,
    options: ConformanceOptions = ConformanceOptions(),
) -> int:
    """Judge a gateway: which rules it keeps, which it breaks, and how to see it again.

    Nothing is called without --allow-dial, nothing malformed is sent without --hostile, every call is tagged, limited
    and hung up, and a failure counts when it has been seen twice.

    Args:
        target: The gateway, as quic://HOST:PORT, or "simulated" for the embedded one in virtual time.
    """
    try:
        from agentao_trio.cli import judging
    except ModuleNotFoundError as missing:
        return report_error(missing)
    return judging.command(target, options)
