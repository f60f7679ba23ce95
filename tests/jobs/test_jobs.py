"""Jobs: claims, bells, fairness, spent runs and replay."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
from sqlalchemy import BigInteger, select, type_coerce, update

from identity.errors import BadInput
from identity.model import AccessPattern
from identity.sql.columns import in_microseconds
from identity.tenants import Tenants
from pipeline.duties import reconcile
from pipeline.execution.worker import WorkerSettings
from pipeline.jobs import awaited, bells, claims
from pipeline.jobs.moves import move_job
from pipeline.ledger.paging import Turn
from pipeline.states import JobState, Wait
from pipeline.steps.replay import replay_job
from pipeline.tables import jobs as jobs_table
from pipeline.views.tenant_views import jobs_page
from tests.ledger.acts import lapse, until_awaited
from tests.ledger.house import HOLD, House
from tests.ledgers import MOSTLY_SQLITE
from tests.webhooks.parts import MemoryRing

HYBRID = str(AccessPattern.HYBRID)


def test_of_many_claims_of_one_job_one_wins(house: House) -> None:
    job = house.job()
    won: list[Any] = []
    threads = [
        threading.Thread(
            target=lambda: won.append(house.database.write(partial(claims.claim, job=job, claim_for=HOLD)))
        )
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (claimed,) = [claim for claim in won if claim is not None]
    assert (claimed.id, claimed.fence) == (job, 1)


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_claim_that_waited_for_another_takes_nothing(house: House) -> None:
    """Both found the job queued: the one statement decides. SQLite has one writer anyway."""
    job, won = house.job(), list[Any]()
    claim = partial(claims.claim, job=job, claim_for=HOLD)
    late = threading.Thread(target=lambda: won.append(house.database.write(claim)))
    first = until_awaited(house.database, claim, by=late)
    assert first is not None
    assert (first.fence, won, house.row(job).fence) == (1, [None], 1)


def test_a_bell_for_a_job_that_is_taken_claims_the_tenants_next_one(house: House) -> None:
    first, second = house.job(), house.job()
    assert house.claim(first).id == first
    assert house.claim(first).id == second
    assert house.database.write(partial(claims.claim, job=first, claim_for=HOLD)) is None


def test_a_bell_claims_the_next_one_of_its_own_pattern_alone(house: House) -> None:
    first, other = house.job(), house.job()
    of_service = update(jobs_table).where(jobs_table.c.id == other).values(pattern=AccessPattern.SERVICE)
    house.database.write(lambda c: c.execute(of_service).rowcount)
    house.claim(first)
    assert house.database.write(partial(claims.claim, job=first, claim_for=HOLD)) is None
    assert house.row(other).state == JobState.QUEUED


def test_a_bell_never_claims_for_another_tenant(house: House) -> None:
    mine, _theirs = house.job(), house.job(tenant="globex")
    house.claim(mine)
    assert house.database.write(partial(claims.claim, job=mine, claim_for=HOLD)) is None


def test_a_bell_that_another_was_rung_in_place_of_claims_its_own_job_alone(house: House) -> None:
    """Else one that waits in the broker for longer than it is outstanding is a permit beside the one that counts."""
    now = in_microseconds(datetime.now(UTC))
    first, second, third = (house.job() for _ in range(3))
    house.claim(first)
    claim = partial(claims.claim, job=first, claim_for=HOLD)
    assert house.database.write(partial(claim, lapses=now - 1_000_000)) is None
    by_another = house.database.write(partial(claim, lapses=now + 30_000_000))
    assert by_another is not None
    assert by_another.id == second
    its_own = house.database.write(partial(claims.claim, job=third, claim_for=HOLD, lapses=now - 1_000_000))
    assert its_own is not None


def test_a_forged_bell_claims_nothing(house: House) -> None:
    house.job()
    assert house.database.write(partial(claims.claim, job="job_forged", claim_for=HOLD)) is None


def test_a_stale_fence_moves_nothing(house: House) -> None:
    job = house.job()
    old = house.claim(job)
    lapse(house, job)
    reconcile.reclaim(house.database, WorkerSettings(backoff=timedelta()))
    new = house.claim(job)
    assert new.fence == old.fence + 1
    for end in (claims.finish, partial(claims.bury, reason="told so"), partial(claims.cancel, reason="told so")):
        assert not house.database.write(partial(end, job=old))
        assert house.row(job).state == JobState.RUNNING
    assert house.database.write(partial(claims.finish, job=new))


def test_a_lapsed_claim_spends_a_run_and_the_last_one_buries_the_job_with_the_reason(house: House) -> None:
    job = house.job()
    settings = WorkerSettings(runs=3, backoff=timedelta())
    for spent in (1, 2, 3):
        house.claim(job)
        lapse(house, job)
        reconcile.reclaim(house.database, settings)
        assert house.row(job).runs_spent == spent
    row = house.row(job)
    assert row.state == JobState.DEAD
    assert "3 runs failed" in row.reason
    assert row.claimed_until is None


def test_two_hosts_reclaiming_at_once_spend_one_run(house: House) -> None:
    job = house.job()
    house.claim(job)
    lapse(house, job)
    threads = [
        threading.Thread(target=reconcile.reclaim, args=(house.database, WorkerSettings(backoff=timedelta())))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (house.row(job).runs_spent, house.row(job).state) == (1, JobState.QUEUED)


def test_requeueing_a_job_that_was_told_to_stop_cancels_it(house: House) -> None:
    job = house.job()
    claimed = house.claim(job)
    house.database.write(partial(move_job, job=job, to=JobState.STOPPING))
    house.database.write(partial(claims.requeue, job=claimed, delay=timedelta(), reason="again"))
    assert house.row(job).state == JobState.CANCELLED


def test_a_function_that_returns_is_done_even_if_it_was_told_to_stop(house: House) -> None:
    job = house.job()
    claimed = house.claim(job)
    house.database.write(partial(move_job, job=job, to=JobState.STOPPING))
    assert house.database.write(partial(claims.finish, job=claimed))
    assert house.row(job).state == JobState.DONE


def test_a_replay_is_accepted_anew(house: House) -> None:
    job = house.job()
    house.database.write(partial(claims.bury, job=house.claim(job), reason="broken"))
    before = house.row(job)
    house.database.write(partial(replay_job, job=job, by="admin", at=datetime.now(UTC)))
    after = house.row(job)
    assert (after.state, after.runs_spent, after.finished_at) == (JobState.QUEUED, 0, None)
    assert after.accepted > before.accepted
    with pytest.raises(BadInput, match="only dead and cancelled jobs"):
        house.database.write(partial(replay_job, job=job, by="admin", at=datetime.now(UTC)))


def test_a_wait_for_consent_ends_by_its_event_alone_and_an_expired_one_is_dead(house: House) -> None:
    job, day = house.job(), timedelta(days=1)
    park = partial(claims.park, wait=Wait.CONSENT, waits_for="account:x", reason="needs ada")
    house.database.write(partial(park, job=house.claim(job), due_in=day, expires_in=day))
    reconcile.wake_due(house.database)
    assert house.row(job).state == JobState.WAITING
    assert house.database.write(partial(awaited.wake, waits_for="account:x")) == [job]
    house.database.write(partial(park, job=house.claim(job), due_in=timedelta(), expires_in=timedelta()))
    reconcile.wake_due(house.database)
    row = house.row(job)
    assert row.state == JobState.DEAD
    assert "needs ada" in row.reason


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_job_that_is_cancelled_as_its_wait_ends_is_not_woken(house: House) -> None:
    """The waker found it waiting. SQLite has one writer anyway."""
    job, woken, day = house.job(), list[Any](), timedelta(days=1)
    park = partial(
        claims.park, wait=Wait.CONSENT, waits_for="account:x", due_in=day, expires_in=day, reason="needs ada"
    )
    house.database.write(partial(park, job=house.claim(job)))
    wake = partial(awaited.wake, waits_for="account:x")
    waking = threading.Thread(target=lambda: woken.append(house.database.write(wake)))
    assert until_awaited(house.database, partial(move_job, job=job, to=JobState.CANCELLED), by=waking)
    assert (woken, house.row(job).state) == ([[]], JobState.CANCELLED)


def test_a_due_sleeper_wakes(house: House) -> None:
    job = house.job()
    claimed = house.claim(job)
    house.database.write(
        partial(
            claims.park,
            job=claimed,
            wait=Wait.TIME,
            waits_for=None,
            due_in=timedelta(),
            expires_in=timedelta(),
            reason="z",
        )
    )
    reconcile.wake_due(house.database)
    assert house.row(job).state == JobState.QUEUED


def test_acceptance_rings_a_tenants_share_and_no_more(house: House) -> None:
    rung = [bell for _ in range(40) for bell in house.accept(house.delivery(f"d{_}", text=str(_))).bells]
    assert len(rung) == bells.FIRST_SHARE


@MOSTLY_SQLITE
def test_five_jobs_of_another_tenant_are_rung_beside_two_hundred(house: House) -> None:
    for n in range(200):
        house.job(text=str(n))
    late = {house.job(tenant="globex", text=str(n)) for n in range(5)}
    ring = MemoryRing()
    reconcile.dispatch(house.database, ring, window=64)
    by_tenant = {tenant: [bell for bell in ring.bells if bell.tenant == tenant] for tenant in ("acme", "globex")}
    assert len(by_tenant["acme"]) == 32 - bells.FIRST_SHARE
    outstanding = select(jobs_table.c.id).where(
        jobs_table.c.tenant_id == "globex", jobs_table.c.rung_until.is_not(None)
    )
    assert set(house.database.read(lambda c: c.execute(outstanding).scalars().all())) == late


def test_a_lost_bell_is_rung_again(house: House) -> None:
    job = house.job()
    ring = MemoryRing()
    reconcile.dispatch(house.database, ring, window=64)
    assert ring.bells == []
    past = update(jobs_table).where(jobs_table.c.id == job).values(rung_until=jobs_table.c.created_at)
    house.database.write(lambda c: c.execute(past).rowcount)
    reconcile.dispatch(house.database, ring, window=64)
    assert [bell.job for bell in ring.bells] == [job]


@pytest.mark.parametrize("delay", [timedelta(days=2), timedelta(days=20_000), timedelta.max])
def test_a_queued_job_is_due_within_a_day_whatever_it_was_told(house: House, delay: timedelta) -> None:
    job, other = house.job(), house.job()
    claimed = house.claim(job)
    house.database.write(partial(claims.requeue, job=claimed, delay=delay, reason="told so"))
    spend = partial(claims.spend_run, job=other, fence=house.claim(other).fence, limit=5, reason="told so")
    house.database.write(partial(spend, delay=delay))
    for id in (job, other):
        row = house.row(id)
        assert row.state == JobState.QUEUED
        assert timedelta(hours=23) < row.due_at - datetime.now(UTC) <= timedelta(days=1)


def test_a_job_that_was_put_off_beyond_all_dates_is_listed_and_mended_by_commands(house: House) -> None:
    """As an earlier version stored it, by what an upstream had answered."""
    job, other = house.job(), house.job()
    beyond = update(jobs_table).values(due_at=type_coerce(8 * 10**18, BigInteger))
    house.database.write(lambda c: c.execute(beyond).rowcount)
    assert house.row(job).due_at.year == 9999
    assert house.row(job).due_at.astimezone(timezone(timedelta(hours=14)))
    page = house.database.read(partial(jobs_page, tenants=Tenants.of("acme"), turn=Turn(limit=10)))
    assert {one["id"] for one in page.rows} == {job, other}
    assert house.database.write(partial(move_job, job=job, to=JobState.CANCELLED, source=JobState.QUEUED))
    house.database.write(partial(replay_job, job=job, by="ops", at=datetime.now(UTC)))
    assert house.claim(job).id == job
