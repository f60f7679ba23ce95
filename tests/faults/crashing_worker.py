"""`celery --app tests.faults.crashing_worker worker`: the worker of production, but it kills itself where a plan says.

The plan is a file named by CRASH_PLAN: `{"point": "after_call", "passes": 3}` is kill -9 at the third arrival at that
point, by whichever thread. With `"gate": "/a/file"` that arrival stands there until the file does, and with `"pause":
0.5` in place of `passes` every arrival waits for up to half a second, and then, with `"hold": "/a/file"`, for as long
as that file is there. Without a plan nothing happens. What is shortened besides is a refresh's patience, which no
setting has.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from deploy.process import workflows
from deploy.worker import settings
from identity.token_endpoint.budget import RefreshBudget
from pipeline.broker.celery import make_celery
from pipeline.broker.ring import CeleryRing
from pipeline.runtime import Runtime
from tests.faults.gate import Gate

#: In a step: the intent is committed; the answer is here; the result is committed.
CALL_POINTS = ("before_call", "after_call", "after_commit")
#: In a refresh: the same, with the raw answer's own commit in between. Its `after_commit` has another name here.
REFRESH_POINTS = ("before_send", "after_send", "after_answer_stored", "after_refresh_commit")

_LOOKS_AGAIN = 0.02  # seconds

REFRESH = RefreshBudget(
    send=timedelta(seconds=2), http=timedelta(seconds=5), store=timedelta(seconds=5), wait=timedelta(seconds=20)
)


def crash_at(plan: Path | None) -> Callable[[str], None]:
    """`reached` of a runtime: kills or delays where the plan says."""
    if plan is None:
        return lambda point: None
    asked = json.loads(plan.read_text())
    pause: float = asked.get("pause", 0)
    gate = Gate(Path(asked["gate"])) if "gate" in asked else None
    hold = Path(asked["hold"]) if "hold" in asked else None
    lock, last = threading.Lock(), threading.local()
    passes = 0

    def reached(point: str) -> None:
        nonlocal passes
        # Steps and refreshes both say `after_commit`; a refresh's follows its stored answer in the same thread.
        if point == "after_commit" and getattr(last, "point", None) == "after_answer_stored":
            point = "after_refresh_commit"
        last.point = point
        if point != asked["point"]:
            return
        if pause:
            time.sleep(random.uniform(0, pause))
            while hold is not None and hold.exists():
                time.sleep(_LOOKS_AGAIN)
            return
        with lock:
            passes += 1
            mine = passes == asked["passes"]
        if mine and gate:
            gate.stand()
        elif mine:
            os.kill(os.getpid(), signal.SIGKILL)

    return reached


registry = workflows(settings)
named = os.environ.get("CRASH_PLAN")


def open_runtime() -> Runtime:
    runtime = replace(settings.runtime(), refresh=REFRESH)
    return Runtime(runtime, registry, CeleryRing(app), reached=crash_at(Path(named) if named else None))


app = make_celery(settings.broker(), open_runtime, limits=settings.limits())
