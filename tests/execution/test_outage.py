"""An upstream that is away, that hangs, or that says when to come: who waits, until when, and what it spends."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import func, select, update

from identity.model import Scope, ScopeKind
from identity.tables import provider_connections
from pipeline.execution.services import StepSettings
from pipeline.revocation import declaration
from pipeline.run import Run
from pipeline.states import AttemptState, JobState, Wait
from pipeline.tables import attempts, jobs
from tests.identity.providers import Reply, pretend_provider, reply
from tests.ledger.acts import attempts_of
from tests.ledger.house import Say
from tests.ledger.outages import HOUR, MINUTE, TICK, Passing, Upstream, saying
from tests.ledger.workers import Workers, declare
from tests.ledgers import MOSTLY_SQLITE
from tests.waiting import PATIENCE, eventually

pytestmark = MOSTLY_SQLITE

JOBS = 24


@pytest.fixture
def passing(workers: Workers) -> Passing:
    return Passing(workers)


@pytest.mark.parametrize("status", [503, 500, None], ids=["unavailable", "errors", "no answer"])
def test_an_outage_of_a_quarter_of_an_hour_kills_no_job_and_each_is_done_once_in_order(
    passing: Passing, status: int | None
) -> None:
    upstream = Upstream(passing.workers, status)
    declare(passing.workers, partial(saying, Say))
    made = [passing.house.job(text=f"{number:02}") for number in range(JOBS)]
    runs = 0
    for _ in range(15 * MINUTE // TICK):
        runs += passing.work()
        passing.passes(TICK)
    assert passing.states() <= {JobState.WAITING, JobState.QUEUED}
    reasons = {passing.house.row(job).reason for job in made if passing.house.row(job).wait == Wait.UPSTREAM}
    assert reasons
    assert all("away" in reason for reason in reasons), reasons
    assert upstream.asked < 40, "single probes, and not every job's ten attempts"
    assert runs < JOBS * 20, "nobody polls"
    upstream.away = False
    for _ in range(7 * MINUTE // TICK):
        passing.work()
        passing.passes(TICK)
    assert passing.states() == {JobState.DONE}
    assert [row.runs_spent for row in map(passing.house.row, made)] == [0] * JOBS
    told = [body[body.index('"text": "') + 9 :][:2] for body in upstream.did]
    assert sorted(told) == [f"{number:02}" for number in range(JOBS)]
    # In order, but for those that failed before it was known, and the probes. The ledger's clock runs by itself as
    # well, so on a slow machine the line may begin elsewhere and go round once.
    calls = Counter(row.job_id for row in attempts_of(passing.house))
    parked = [text for text in told if calls[made[int(text)]] == 1]
    assert len(parked) > JOBS // 2
    assert sum(after < before for before, after in pairwise(parked)) <= 1, f"no order: {told}"
    assert {row.state for row in attempts_of(passing.house)} <= {
        AttemptState.NO_EFFECT,
        AttemptState.EFFECT,
        AttemptState.ADOPTED,
    }


def test_a_job_that_is_alone_survives_an_outage_too(passing: Passing) -> None:
    upstream = Upstream(passing.workers, 502)
    job = passing.house.job()
    for _ in range(20 * MINUTE // TICK):
        passing.work()
        passing.passes(TICK)
    row = passing.house.row(job)
    assert (row.state, row.wait) == (JobState.WAITING, Wait.UPSTREAM)
    upstream.away = False
    passing.passes(10 * MINUTE)
    passing.work()
    assert passing.house.row(job).state == JobState.DONE
    assert len(upstream.did) == 1


def test_what_one_job_alone_is_answered_with_500_is_no_outage(passing: Passing) -> None:
    upstream = Upstream(passing.workers, 500)
    job = passing.house.job()
    for _ in range(20 * MINUTE // TICK):
        passing.work()
        passing.passes(TICK)
    assert upstream.asked == StepSettings().attempts
    assert passing.house.row(job).wait == Wait.UNKNOWN, "it is for a person, as ever"


def test_the_wait_for_an_upstream_ends(passing: Passing) -> None:
    passing.settings = StepSettings(upstream_wait=3 * HOUR)
    Upstream(passing.workers, 503)
    job = passing.house.job()
    while passing.house.row(job).wait != Wait.UPSTREAM:
        passing.work()
        passing.passes(TICK)
    for _ in range(5 * HOUR // 2 // (5 * MINUTE)):
        passing.passes(5 * MINUTE)
        passing.work()
    assert passing.house.row(job).state == JobState.WAITING
    for _ in range(HOUR // (5 * MINUTE)):
        passing.passes(5 * MINUTE)
        passing.work()
    assert passing.house.row(job).state == JobState.DEAD


def test_an_author_s_patience_is_how_long_a_step_waits(passing: Passing) -> None:
    def patient(run: Run[Any], event: Any) -> None:
        run.do(Say(text="hello"), as_=run.user, patience=2 * HOUR)

    declare(passing.workers, patient)
    Upstream(passing.workers, 503)
    job = passing.house.job()
    for _ in range(4 * HOUR // MINUTE):
        passing.passes(MINUTE)
        passing.work()
    assert passing.house.row(job).state == JobState.DEAD


def test_a_revocation_ends_the_wait_for_an_upstream(passing: Passing) -> None:
    upstream = Upstream(passing.workers, 503)
    job = passing.house.job()
    while passing.house.row(job).wait != Wait.UPSTREAM:
        passing.work()
        passing.passes(TICK)
    scope = Scope(kind=ScopeKind.ACCOUNT, key="acme/gh/acme.ada")
    declared = partial(
        declaration.declare,
        scope=scope,
        cause=declaration.Cause(source="test", by="test", reason=""),
        id="rev-1",
        tenant="acme",
        now=datetime.now(UTC),
    )
    passing.house.database.write(declared)
    upstream.away = False
    passing.passes(HOUR)
    passing.work()
    assert passing.house.row(job).state == JobState.CANCELLED
    assert not upstream.did


def test_a_refusal_that_names_its_wait_spends_no_attempt_and_not_for_ever(passing: Passing) -> None:
    passing.settings = StepSettings(upstream_wait=8 * HOUR)
    upstream = Upstream(passing.workers, None)
    passing.workers.provider.call = lambda token: (
        reply({"id": "7"}) if not upstream.away else reply({}, 429, retry_after="60")
    )
    jobs_ = [passing.house.job() for _ in range(2)]
    for _ in range(40):
        passing.passes(10 * MINUTE)
        passing.work()
    assert passing.states() == {JobState.QUEUED}, "a rate limit is no outage"
    assert len(attempts_of(passing.house)) == 80
    passing.house.database.write(
        lambda c: c.execute(update(jobs).where(jobs.c.id == jobs_[1]).values(state="cancelled"))
    )
    upstream.away = False
    passing.passes(10 * MINUTE)
    passing.work()
    assert passing.house.row(jobs_[0]).state == JobState.DONE
    upstream.away = True
    last = passing.house.job()
    for _ in range(40):
        passing.passes(20 * MINUTE)
        passing.work()
    assert passing.house.row(last).state == JobState.DEAD
    made = [row.counts_as for row in attempts_of(passing.house) if row.job_id == last]
    assert made.count(None) == StepSettings().attempts, "from then on each counts"
    assert made[-StepSettings().attempts :] == [None] * StepSettings().attempts


def test_a_host_that_hangs_gets_half_of_the_threads_and_others_are_called_meanwhile(passing: Passing) -> None:
    answers, arrived = threading.Event(), threading.Semaphore(0)

    def hang(token: str) -> Reply:
        arrived.release()
        answers.wait(PATIENCE)
        return reply({"id": "7"})

    passing.workers.provider.call = hang
    passing.workers.shared["in_flight"] = passing.flights(4)
    hanging, other = [passing.house.job() for _ in range(8)], passing.house.job()
    with ThreadPoolExecutor(6) as threads, pretend_provider() as elsewhere:
        calls = [threads.submit(passing.workers.work, job) for job in hanging]
        try:
            for _ in range(4):
                assert arrived.acquire(timeout=PATIENCE)
            eventually(lambda: sum(call.done() for call in calls) == 4, "four are sent back")
            back = [passing.house.row(job) for job in hanging]
            back = [row for row in back if row.state == JobState.QUEUED]
            assert len(back) == 4
            assert all("had no time to answer yet" in row.reason for row in back)
            assert len({row.due_at for row in back}) == 4, "a line, and no herd"
            passing.passes(MINUTE)
            threads.submit(passing.workers.work, back[0].id).result(PATIENCE)
            assert "does not answer" in passing.house.row(back[0].id).reason
            moved = update(provider_connections).values(api_url=elsewhere.url)
            passing.house.database.write(lambda c: c.execute(moved).rowcount)
            threads.submit(passing.workers.work, other).result(PATIENCE)
            assert passing.house.row(other).state == JobState.DONE
            assert not arrived.acquire(blocking=False)
        finally:
            answers.set()
    assert (
        passing.house.database.read(lambda c: c.execute(select(func.count()).select_from(attempts)).scalar_one()) == 5
    )
