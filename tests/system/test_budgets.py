"""Worker processes and upstreams that allow so many requests a window, or say to come back later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from deploy.sandbox.world import PEOPLE
from deploy.trial.passing import time_passes
from pipeline.states import AttemptState, JobState
from pipeline.tables import attempts, jobs
from tests.system.conftest import Start

LIMIT, WINDOW = 6, 4  # requests, seconds
PULLS = 20  # of one account, in workers that have places for all of them at once: three windows and more
WORKERS = ("worker-1", "worker-2", "worker-3")
# Before the first answer nobody knows the limit: see `pipeline.throttle.budget.UNKNOWN_FLYING`.
UNKNOWN = 4


def test_three_workers_never_ask_more_than_the_upstream_allows_and_all_is_done(start_system: Start) -> None:
    """Each job reads its pull request as the installation and comments as ada: two budgets, and both run out."""
    system = start_system()
    system.start("web", "housekeeping")
    system.connect("acme", "ada")
    other = PEOPLE["globex"][0]
    system.connect("globex", other)
    system.order("github", "limits", limit=LIMIT, seconds=WINDOW)
    before = len(system.sandbox("github", "log"))
    for _ in range(PULLS):
        system.pull("acme/shop", "ada", "bug")
    system.wait(lambda: len(system.jobs()) >= PULLS, "acme's jobs")
    system.pull("globex/site", other, "bug")
    system.wait(lambda: system.count(jobs, jobs.c.tenant_id == "globex"), "globex's job")
    system.start(*WORKERS)  # all jobs are there: none comes so late that it needs to wait for nothing
    done = system.settled()
    assert {job.state for job in done} == {JobState.DONE}, system.state()
    ended = [entry for name in WORKERS for entry in system.logged(name) if entry.get("action") == "job.run_ended"]

    # The upstream refuses whatever is beyond a window's limit: what it refused is all that was asked too much.
    calls = [entry for entry in system.sandbox("github", "log")[before:] if entry["attempt"]]
    refused = [(entry["at"], entry["actor"]) for entry in calls if entry["status"] == 403]
    assert len(refused) <= UNKNOWN, f"the workers asked for more than there was: {refused}"
    sent_back = {entry["job"] for entry in ended if entry["reason"].endswith("is used up for now")}
    whose = {job.tenant_id for job in system.jobs() if job.id in sent_back}
    assert whose == {"acme"}, "nobody had to wait, or another tenant's budget sent somebody back"
    waited = system.rows(select(jobs.c.runs_spent))
    assert {row.runs_spent for row in waited} == {0}, "waiting spends no run"


@pytest.mark.parametrize(
    ("upstream", "endpoint", "status"),
    [
        pytest.param("github", "get_pull", 403, id="a secondary limit of GitHub's"),
        pytest.param("slack", "chat_post_message", 429, id="Slack's", marks=pytest.mark.slow),
    ],
)
def test_a_job_that_is_told_to_come_back_in_an_hour_leaves_the_only_slot_to_others_and_holds_back_other_workers(
    start_system: Start, upstream: str, endpoint: str, status: int
) -> None:
    """The upstream refuses once only, so a call that another worker made meanwhile would succeed."""
    system = start_system()
    system.concurrency = 1
    system.start("web", "housekeeping", "worker")
    system.connect("acme", "ada")
    other = PEOPLE["globex"][0]
    system.connect("globex", other)
    headers = {"Retry-After": "3600"}
    system.order(upstream, "faults", mode="status", status=status, endpoint=endpoint, headers=headers)

    def calls() -> int:
        return sum(entry["attempt"] is not None for entry in system.sandbox(upstream, "log"))

    system.pull("acme/shop", "ada", "bug")
    away = jobs.c.due_at > datetime.now(UTC) + timedelta(minutes=50)
    waits = (jobs.c.tenant_id == "acme", jobs.c.state == JobState.QUEUED, away, jobs.c.claimed_until.is_(None))
    system.wait(lambda: system.count(jobs, *waits), "that acme's job waits by its due date")
    system.pull("globex/site", other, "bug")
    done = (jobs.c.tenant_id == "globex", jobs.c.state == JobState.DONE)
    system.wait(lambda: system.count(jobs, *done), "globex's job in the only slot")
    assert system.count(jobs, *waits), "acme's job did not wait"

    # This worker has seen no refusal: all it can know of the pause is in Redis.
    system.stop("worker")
    system.start("worker-2")
    asked = calls()
    system.pull("acme/shop", "ada", "bug")
    system.wait(lambda: system.count(jobs, *waits) == 2, "that acme's second job waits too")
    assert calls() == asked, "another worker asked within the pause"

    system.runtime.database.write(time_passes)
    with system.broker.client() as redis:
        for key in redis.scan_iter("*budget:*"):
            redis.delete(key)  # an hour has passed there too
    assert {job.state for job in system.settled()} == {JobState.DONE}, system.state()
    refused = system.rows(select(attempts.c.state, attempts.c.tenant_id).where(attempts.c.status == status))
    assert refused == [(AttemptState.NO_EFFECT, "acme")]
    assert {job.runs_spent for job in system.jobs()} == {0}
