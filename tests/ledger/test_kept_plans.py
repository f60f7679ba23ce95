"""What is asked of the queue all day is planned once, for any values, and finds its index all the same."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import Connection, insert, select, text, update

from identity.keys.signing import Signer
from pipeline.duties.retention import Retention, prune
from pipeline.jobs import bells, claims
from pipeline.jobs.intents import Opened
from pipeline.steps import stored as ledger_steps
from pipeline.steps.openings import open_attempt
from pipeline.tables import jobs as jobs_table
from tests.ledger.house import House, intent_of
from tests.ledger.plans import kept_plans, plans

pytestmark = pytest.mark.as_owner


def _queued(house: House) -> str:
    """Two thousand due jobs of one queue, in a table that has been counted. The first of them."""
    job = house.job()

    def queue(c: Connection) -> None:
        one = dict(c.execute(select(jobs_table).where(jobs_table.c.id == job)).mappings().one())
        c.execute(insert(jobs_table), [{**one, "id": f"job-{place}"} for place in range(2_000)])
        c.execute(text("analyze"))

    house.database.write(queue)
    return job


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_bells_claims_and_late_attempts_are_found_by_their_index_whatever_the_values(house: House) -> None:
    """Its condition names a state: a plan for any state could not use it."""
    write = house.database.write
    first = _queued(house)

    def accept_dispatch_and_claim() -> None:
        house.job()
        write(partial(bells.top_up, pattern="hybrid", shares={"acme": 16}))
        write(bells.busy_tenants)
        for _ in range(2):  # the job that is named, and then the next one
            write(partial(claims.claim, job=first, claim_for=timedelta(seconds=1)))
        write(partial(ledger_steps.overdue, limit=10))

    told = kept_plans(house.database, accept_dispatch_and_claim)
    of_queue = {statement: plan for statement, plan in told.items() if "jobs.pattern =" in statement}
    (unanswered,) = (statement for statement in of_queue if statement.startswith("SELECT jobs.id"))
    assert "ix_jobs_rung" in of_queue.pop(unanswered)
    assert len(of_queue) == 5
    assert all("ix_jobs_due" in plan for plan in of_queue.values()), of_queue
    # What is not due yet is not even passed: there may be very much of it while a provider is away.
    bounded = {
        statement: r"Limit .*\n.*ix_jobs_due" if "min(jobs.due_at)" in statement else r"Index Cond: .*due_at <="
        for statement in of_queue
    }
    assert all(re.search(how, of_queue[statement]) for statement, how in bounded.items()), of_queue
    (late,) = (plan for statement, plan in told.items() if "attempts.settled_by <" in statement)
    assert "ix_attempts_open" in late


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_queue_without_due_jobs_is_seen_without_reading_those_of_another(house: House) -> None:
    """The table has been counted, and nearly all of it is due in one queue."""
    _queued(house)
    assert {pattern for pattern, busy in house.database.read(bells.busy_tenants).items() if busy} == {"hybrid"}
    told = plans(house.database, bells.busy_tenants, large=True)
    assert len(told) == 4
    assert not [plan for plan in told if "Seq Scan on jobs" in plan], told


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_what_workers_have_is_counted_without_reading_what_is_queued(house: House) -> None:
    _queued(house)
    house.claim(house.job())
    house.database.write(lambda c: c.execute(update(jobs_table).values(rung_until=None)).rowcount)
    told = plans(house.database, bells.busy_tenants, large=True)
    assert len(told) == 6, "some lack bells: whether they may have any is asked, and what runs is counted"
    assert not [plan for plan in told if "Seq Scan on jobs" in plan], told
    assert [plan for plan in told if "ix_jobs_claimed" in plan]


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_an_opening_moves_its_jobs_claim_without_a_write_to_any_index(house: House) -> None:
    """PostgreSQL counts such updates apart: "heap only"."""
    asked = intent_of(house, house.claim(house.job()))
    counts = "pg_stat_get_xact_tuples_updated('jobs'::regclass), pg_stat_get_xact_tuples_hot_updated('jobs'::regclass)"

    def moved(c: Connection) -> tuple[int, int]:  # with what the connection has not told the server's statistics yet
        every, heap_only = c.exec_driver_sql(f"select {counts}").one()
        return every, heap_only

    def opens(c: Connection) -> tuple[int, int]:
        before = moved(c)
        assert isinstance(open_attempt(c, asked), Opened)
        after = moved(c)
        return after[0] - before[0], after[1] - before[1]

    assert house.database.write(opens) == (1, 1)


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_what_is_old_is_found_by_its_index_whatever_the_values(house: House) -> None:
    def forget() -> None:
        now = datetime.now(UTC)
        prune(house.database, Retention(), Signer.from_seed(b"s" * 32), now=now, within=timedelta(minutes=1))

    told = kept_plans(house.database, forget)
    indexes = {
        "ix_deliveries_bodies",
        "ix_delivery_bodies_seen",
        "ix_jobs_unpruned",
        "ix_capabilities_expires",
        "ix_refresh_intents_finished",
        "ix_connect_sessions_expires",
        "ix_idempotency_keys_made",
        "ix_slots_fired",
    }
    assert {index for index in indexes if any(index in plan for plan in told.values())} == indexes
