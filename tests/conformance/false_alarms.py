"""``python -m tests.conformance.false_alarms --seeds 100``: how often a gateway without faults is accused."""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from agentao_trio.conformance.runner import Verdict
from tests.conformance.judging import BAD, judged


def main() -> int:
    """Run the whole list with many seeds, every other time with losses, and write the rate. Exit status 1 above 1 in
    1000."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--loss", type=float, default=0.02)
    parser.add_argument("--only", nargs="*", default=[])
    asked = parser.parse_args()
    verdicts: Counter[Verdict] = Counter()
    for seed in range(asked.first, asked.first + asked.seeds):
        loss = asked.loss if seed % 2 else 0.0
        report = judged(*asked.only, seed=seed, loss=loss, slow=False, examples=3, preflight=True)
        verdicts.update(each.verdict for each in report.results)
        for each in report.results:
            if each.verdict in (*BAD, Verdict.ERROR, Verdict.INCONCLUSIVE):
                sys.stdout.write(f"seed {seed} loss {loss:g}: {each.requirement.id} {each.verdict}: {each.reason}\n")
    alarms, runs = sum(verdicts[each] for each in BAD), sum(verdicts.values())
    sys.stdout.write(
        f"{alarms} false alarms in {runs} check runs ({', '.join(f'{n} {v}' for v, n in verdicts.items())})\n"
    )
    return int(alarms * 1000 > runs)


if __name__ == "__main__":
    sys.exit(main())
