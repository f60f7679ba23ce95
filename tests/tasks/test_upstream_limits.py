"""Worker processes and upstreams that allow so many requests a window, each of which says so in its own headers.

What GitHub says, and a window that ends while they work, is in `tests/system/test_budgets.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deploy.trial.passing import time_passes
from pipeline.states import JobState
from tests.faults.time_passes import lapse_bells
from tests.system.rig import System
from tests.tasks.hands import Hands
from tests.tasks.scenes import REPO, TENANT, deal, opportunity

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WORKERS = ("worker-1", "worker-2", "worker-3")
LIMIT = 6  # requests; more than may fly while nobody knows the limit, so none is refused
JOBS = 14  # which ask at least once each: three windows
AWHILE = timedelta(seconds=5)  # longer than who does not know the limit waits for somebody's answer


@dataclass(frozen=True, kw_only=True)
class Limited:
    name: str
    upstream: str
    connect: Callable[[Hands], None]
    ask: Callable[[Hands, int], object]
    limit: dict[str, Any]
    usual: dict[str, Any]  # what the sandbox has without an order

    def order(self, hands: Hands, how: dict[str, Any]) -> None:
        hands.sandbox.order(self.upstream, "limits", **how)


def _linear(name: str, *, limit: dict[str, Any], usual: dict[str, Any]) -> Limited:
    return Limited(
        name=name,
        upstream="linear",
        connect=lambda hands: hands.connect_engineer(TENANT, "ada"),
        ask=lambda hands, number: hands.pull(REPO, "ada", "bug"),
        limit=limit,
        usual=usual,
    )


def _reported(hands: Hands, number: int) -> None:
    data = {"reference": f"inc-{number}", "customer": "Umbrella", "subject": "It hurts", "description": "Here."}
    hands.report(TENANT, "incident.reported", data)


EVERY = (
    _linear("linear", limit={"limit": LIMIT, "seconds": 3600}, usual={"limit": 5000, "seconds": 3600}),
    # Others have used nearly all of it: as large a share of its requests is left as of its points.
    _linear(
        "linear-complexity",
        limit={"of": "complexity", "limit": 250_000, "seconds": 3600, "used": 250_000 - LIMIT * 50},
        usual={"of": "complexity", "limit": 250_000, "seconds": 3600},
    ),
    Limited(
        name="salesforce",
        upstream="salesforce",
        connect=lambda hands: hands.connect_seller(TENANT, "ada"),
        ask=lambda hands, number: hands.report(
            TENANT,
            "deal.changed",
            deal(opportunity(hands), amount=number),
            at=datetime.now(UTC) + timedelta(seconds=number),
        ),
        limit={"limit": LIMIT, "seconds": 86_400},
        usual={"limit": 100_000, "seconds": 86_400},
    ),
    Limited(
        name="zendesk",
        upstream="zendesk",
        connect=lambda hands: None,
        ask=_reported,
        limit={"limit": LIMIT, "seconds": 60},
        usual={"limit": 700, "seconds": 60},
    ),
)


@pytest.mark.parametrize("limited", EVERY, ids=lambda limited: limited.name)
def test_three_workers_never_ask_more_than_is_left_and_all_is_done(
    worked: System, hands: Hands, limited: Limited
) -> None:
    limited.connect(hands)
    for number in range(JOBS):
        limited.ask(hands, number)
    lapse_bells(worked)
    before = len(hands.sandbox.read(limited.upstream, "log"))
    limited.order(hands, limited.limit)
    worked.start(*WORKERS)
    try:
        windows = 1
        worked.wait(lambda: all_done_or_waiting(worked), "the end of the first window")
        while any(job.state != JobState.DONE for job in worked.jobs()):
            windows += 1
            another_window(worked, limited, hands)
            worked.wait(lambda: all_done_or_waiting(worked), f"the end of window {windows}")
    finally:
        limited.order(hands, limited.usual)
    calls = [entry for entry in hands.sandbox.read(limited.upstream, "log")[before:] if entry["attempt"]]
    assert len(calls) >= JOBS
    assert [(entry["at"], entry["status"]) for entry in calls if entry["status"] >= 400] == []
    assert windows >= len(calls) / LIMIT
    assert {job.runs_spent for job in worked.jobs()} == {0}, "waiting spends no run"


def all_done_or_waiting(worked: System) -> bool:
    later = datetime.now(UTC) + AWHILE
    return all(
        job.state == JobState.DONE or (job.state == JobState.QUEUED and job.due_at > later) for job in worked.jobs()
    )


def another_window(worked: System, limited: Limited, hands: Hands) -> None:
    """So much time has passed at the upstream, in the ledger, and for the budgets."""
    limited.order(hands, limited.limit)
    with worked.broker.client() as redis:
        for key in redis.scan_iter("*budget:*"):
            redis.delete(key)
    worked.runtime.database.write(time_passes)
    lapse_bells(worked)
