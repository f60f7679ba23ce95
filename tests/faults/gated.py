"""A worker that stands at a gate in the middle of a job."""

from __future__ import annotations

import json

from tests.faults.gate import Gate
from tests.system.rig import System


def start_gated(system: System, point: str, *, passes: int, concurrency: int = 16, **environment: str) -> Gate:
    """Start it and wait until it has come to *point* for the *passes*-th time, where it stands until the gate opens."""
    gate, plan = Gate(system.directory / "gate"), system.directory / "plan.json"
    plan.write_text(json.dumps({"point": point, "passes": passes, "gate": str(gate.file)}))
    system.worker_app, system.concurrency = "tests.faults.crashing_worker", concurrency
    system.start("worker", CRASH_PLAN=str(plan), **environment)
    system.wait(gate.reached, f"arrival {passes} at {point}")
    return gate
