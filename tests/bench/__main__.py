"""`python -m tests.bench [name…] [option…]`: prints figures and judges nothing."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable

from tests.bench import (
    accept,
    audit,
    backlog,
    capability,
    console,
    jobs,
    keepalive,
    lost,
    policy,
    revoke,
    step,
    waiters,
    watching,
)
from tests.bench.figures import Sheet
from tests.bench.ground import KINDS, Ground, prepared
from tests.bench.surroundings import describe

MEASUREMENTS: dict[str, Callable[[Ground, int], Sheet]] = {
    "accept": accept.measure,
    "lost": lost.measure,
    "jobs": jobs.measure,
    "step": step.measure,
    "revoke": revoke.measure,
    "backlog": backlog.measure,
    "waiters": waiters.measure,
    "keepalive": keepalive.measure,
    "capability": capability.measure,
    "watching": watching.measure,
    "console": console.measure,
    "audit": audit.measure,
    "policy": policy.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(MEASUREMENTS)}; none: all")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured, in turns (3)")
    kinds = {kind.lower(): kind for kind in KINDS}
    parser.add_argument("--ledger", choices=kinds, help="on this kind of ledger alone (both)")
    pending = parser.add_mutually_exclusive_group()
    pending.add_argument("--pending", type=int, default=20_000, help="jobs that backlog queues (20,000)")
    pending.add_argument(
        "--full",
        dest="pending",
        action="store_const",
        const=200_000,
        help="backlog over 200,000 jobs, and a commit over up to 1,000,000: far longer",
    )
    parser.add_argument("--jobs", type=int, default=1_000_000, help="that console looks at; a tenth as many accounts")
    parser.add_argument("--json", action="store_true", help="one JSON document in place of text")
    asked = parser.parse_args()
    if unknown := sorted(set(asked.names) - MEASUREMENTS.keys()):
        parser.error(f"no measurement is named {', '.join(unknown)}: there are {', '.join(MEASUREMENTS)}")
    if asked.jobs < 5_000:
        parser.error("--jobs must be at least 5000")
    if asked.rounds < 1:
        parser.error("--rounds must be at least 1")
    logging.basicConfig(format="%(message)s")  # to stderr, so that --json stays a document
    logging.getLogger("tests.bench").setLevel(logging.INFO)
    began = time.monotonic()
    asked_kinds = [kinds[asked.ledger]] if asked.ledger else KINDS
    with prepared(kinds=asked_kinds, pending=asked.pending, jobs=asked.jobs) as ground:
        where = describe(ground)
        sheets = {}
        if not asked.json:
            print("\n".join(f"{name:<11}{value}" for name, value in where.items()))
        for name in asked.names or MEASUREMENTS:
            sheets[name] = MEASUREMENTS[name](ground, asked.rounds)
            if not asked.json:
                print(f"\n{sheets[name].text()}", flush=True)
    if asked.json:
        document = {name: {"title": s.title, "notes": s.notes, "rows": s.rows()} for name, s in sheets.items()}
        print(json.dumps({"surroundings": where, "rounds": asked.rounds, "measurements": document}, indent=2))
    else:
        print(f"\n{asked.rounds} rounds in turns, {time.monotonic() - began:.0f} s: median (least … greatest)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
