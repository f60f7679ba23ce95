"""What is asked of the queue all day is planned once, for any values, and finds its index all the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import Connection, insert, select, text

from identity.signing import Signer
from pipeline.ledger import bells, jobs
from pipeline.ledger import steps as ledger_steps
from pipeline.retention import Retention, prune
from pipeline.tables import jobs as jobs_table
from tests.ledger.house import House
from tests.ledger.plans import kept_plans, plans


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_bells_claims_and_late_attempts_are_found_by_their_index_whatever_the_values(house: House) -> None:
    """Its condition names a state: a plan for any state could not use it."""
    write = house.database.write
    first, _ = house.job(), house.job()

    def accept_dispatch_and_claim() -> None:
        house.job()
        write(partial(bells.top_up, pattern="hybrid", window=16))
        write(bells.patterns_with_due_jobs)
        for _ in range(2):  # the job that is named, and then the next one
            write(partial(jobs.claim, job=first, hold=timedelta(seconds=1)))
        write(partial(ledger_steps.overdue, limit=10))

    told = kept_plans(house.database, accept_dispatch_and_claim)
    of_queue = [plan for statement, plan in told.items() if "jobs.pattern =" in statement]
    assert len(of_queue) == 5
    assert all("ix_jobs_due" in plan for plan in of_queue), of_queue
    (late,) = (plan for statement, plan in told.items() if "attempts.settled_by <" in statement)
    assert "ix_attempts_open" in late


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_queue_without_due_jobs_is_seen_without_reading_those_of_another(house: House) -> None:
    """The table has been counted, and nearly all of it is due in one queue."""
    job = house.job()

    def queue(c: Connection) -> None:
        one = dict(c.execute(select(jobs_table).where(jobs_table.c.id == job)).mappings().one())
        c.execute(insert(jobs_table), [{**one, "id": f"job-{place}"} for place in range(2_000)])
        c.execute(text("analyze jobs"))

    house.database.write(queue)
    assert house.database.read(bells.patterns_with_due_jobs) == ["hybrid"]
    (plan,) = plans(house.database, bells.patterns_with_due_jobs)
    assert "Seq Scan" not in plan, plan


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_what_is_old_is_found_by_its_index_whatever_the_values(house: House) -> None:
    def forget() -> None:
        now = datetime.now(UTC)
        prune(house.database, Retention(), Signer.from_seed(b"s" * 32), now=now, within=timedelta(minutes=1))

    told = kept_plans(house.database, forget)
    indexes = {
        "ix_deliveries_bodies",
        "ix_jobs_unpruned",
        "ix_capabilities_expires",
        "ix_refresh_intents_finished",
        "ix_connect_sessions_expires",
        "ix_idempotency_keys_made",
        "ix_slots_fired",
    }
    assert {index for index in indexes if any(index in plan for plan in told.values())} == indexes
