"""One tenant's thousands and another's five."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, func, select

from pipeline.jobs import pins
from pipeline.jobs.new_jobs import NewJob, insert_job
from pipeline.states import JobState
from pipeline.tables import attempts, jobs
from tests.faults.books import balance
from tests.system.rig import System

WINDOW = 16  # outstanding bells a queue: what may be ahead of a newcomer


def pile_up(system: System, number: int) -> None:
    """*number* jobs of acme like the one it has: straight into the ledger, as no sender could."""
    workflow = system.runtime.workflows.get("link_pull_request")
    like = next(job for job in system.jobs() if job.tenant_id == "acme")

    def insert(connection: Connection) -> None:
        config = pins.enabled(connection, "acme", workflow.name)
        assert config is not None
        for _ in range(100):
            insert_job(
                connection,
                NewJob(
                    id=system.ids("job"),
                    tenant="acme",
                    workflow=workflow,
                    triggered_by="ada",
                    event=like.event,
                    config=config,
                    source_connection="github",
                ),
                now=datetime.now(UTC),
            )

    for _ in range(number // 100):
        system.runtime.database.write(insert)


def share(system: System, number: int) -> None:
    system.start("worker")
    for repo, login in (("acme/shop", "ada"), ("globex/site", "linus")):
        assert system.pull(repo, login)["statuses"] == [202]
    assert {job.state for job in system.settled()} == {JobState.DONE}  # both have their installation's token now
    system.stop("worker")
    pile_up(system, number)
    first = max(job.accepted for job in system.jobs())
    system.start("worker")
    system.wait(lambda: system.count(jobs, jobs.c.state == JobState.DONE) > 20, "the pile to be worked on")
    for _ in range(5):
        assert system.pull("globex/site", "linus")["statuses"] == [202]
    system.wait(lambda: not system.count(jobs, jobs.c.tenant_id == "globex", jobs.c.state != JobState.DONE), "the five")
    system.wait(lambda: not system.count(jobs, jobs.c.state != JobState.DONE), "the pile's end", seconds=200)
    # By the ledger's numbers: acme's first calls between the acceptance and the first call of each of the five.
    began = select(jobs.c.tenant_id, jobs.c.accepted, func.min(attempts.c.opened).label("opened"))
    rows = system.rows(began.join(attempts, attempts.c.job_id == jobs.c.id).group_by(jobs.c.id))
    pile = [row.opened for row in rows if row.tenant_id == "acme"]
    five = [row for row in rows if row.tenant_id == "globex" and row.accepted > first]
    waited = [sum(row.accepted < opened < row.opened for opened in pile) for row in five]
    left = sum(opened > max(row.opened for row in five) for opened in pile)
    print(f"calls of the pile ahead of each of the five: {waited}, {left} after them")
    assert len(waited) == 5
    assert left > number // 10, "the pile was too small to be in anyone's way"
    # The bells that were out, the claims that were held, and what was claimed while the newcomer's bell was on its way.
    assert max(waited) <= WINDOW + 3 * system.concurrency
    balance(system)


@pytest.mark.timeout(600)
def test_five_jobs_are_among_the_next_beside_a_hundred(sqlite_system: System) -> None:
    share(sqlite_system, 100)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_five_jobs_are_among_the_next_beside_two_thousand(system: System) -> None:
    share(system, 2000)
