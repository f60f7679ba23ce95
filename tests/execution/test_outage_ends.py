"""How a wait for an upstream ends, what is known by then of what was sent, and what is sent again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import ClassVar

import pytest
from sqlalchemy import update

from identity import hold
from identity.audit import Act
from pipeline.action import Facts, Recovery
from pipeline.duties import reconcile
from pipeline.execution.services import StepSettings
from pipeline.jobs import claims as ledger_jobs
from pipeline.jobs.intents import Opened
from pipeline.ledger.clock import ledger_now
from pipeline.states import AttemptState, CountsAs, JobState, StepState, Wait
from pipeline.tables import jobs
from pipeline.throttle.breaker import Breakers, Errand
from pipeline.throttle.breaker_state import Passed
from pipeline.throttle.budget import Budget, Budgets
from pipeline.throttle.limits import EndpointClass, Limits
from pipeline.workflow import USER
from tests.identity.providers import reply
from tests.ledger.acts import attempts_of, close, open_, steps_of
from tests.ledger.house import Say, intent_of
from tests.ledger.outages import DAY, HOUR, MINUTE, Passing, Upstream, saying, until_it_waits
from tests.ledger.workers import Workers
from tests.ledgers import MOSTLY_SQLITE

pytestmark = MOSTLY_SQLITE


class KeyedSay(Say):
    facts: ClassVar[Facts] = replace(Say.facts, recovery=Recovery.KEYED)


class CountedSay(Say):
    facts: ClassVar[Facts] = replace(Say.facts, endpoints=EndpointClass(name="core"))


def _says_by(passing: Passing, action: type[Say]) -> None:
    house = passing.house
    house.workflow = replace(house.workflow, function=partial(saying, action), uses={action: USER})


@pytest.fixture
def passing(workers: Workers) -> Passing:
    return Passing(workers)


def test_a_wait_that_nobody_looked_at_until_it_was_over_looks_once_more(passing: Passing) -> None:
    upstream = Upstream(passing.workers, 503)
    jobs_ = [passing.house.job() for _ in range(2)]
    for job in jobs_:
        until_it_waits(passing, job)
    passing.passes(2 * DAY)  # nothing of ours ran
    upstream.away = False
    passing.work()
    assert passing.states() == {JobState.DONE}


def test_while_the_installation_is_held_no_wait_for_an_upstream_ends(passing: Passing) -> None:
    upstream = Upstream(passing.workers, 503)
    job = passing.house.job()
    until_it_waits(passing, job)
    act = Act(audit_id="aud-hold", by="test", now=datetime.now(UTC), why="restored")
    passing.house.database.write(partial(hold.set_hold, act=act))
    passing.passes(2 * DAY)
    passing.work()
    assert passing.house.row(job).state == JobState.QUEUED
    passing.house.database.write(partial(hold.release_hold, act=replace(act, audit_id="aud-release")))
    upstream.away = False
    passing.work()
    assert passing.house.row(job).state == JobState.DONE


def test_a_wait_that_is_over_ends_at_its_next_look_in_vain_and_says_for_what_it_was(passing: Passing) -> None:
    Upstream(passing.workers, 503)
    jobs_ = [passing.house.job() for _ in range(2)]
    for job in jobs_:
        until_it_waits(passing, job)
    passing.passes(2 * DAY)
    for _ in range(HOUR // MINUTE):
        passing.work()
        passing.passes(MINUTE)
    rows = [passing.house.row(job) for job in jobs_]
    assert {row.state for row in rows} == {JobState.DEAD}
    assert all(row.reason.startswith("UpstreamGone: github.Say failed: ") for row in rows)
    assert all(row.reason.endswith("did not come back in time") for row in rows)
    assert {step.state for step in steps_of(passing.house)} == {StepState.FAILED}


def test_that_an_attempt_spends_none_is_for_whoever_counts_and_not_for_whoever_asks_why(passing: Passing) -> None:
    Upstream(passing.workers, 502)
    job = passing.house.job()
    until_it_waits(passing, job)
    (step,) = steps_of(passing.house)
    assert step.error == "status 502"
    last = attempts_of(passing.house)[-1]
    assert (last.counts_as, last.error) == (CountsAs.UNSPENT, "status 502")
    assert passing.house.row(job).reason.startswith(
        "github.Say was sent and its outcome is not known: status 502: 127.0.0.1"
    )
    assert passing.house.row(job).reason.endswith(" is away")


def _parked_for_an_upstream(passing: Passing, job: str) -> bool:
    row = passing.house.row(job)
    return (row.state, row.wait) == (JobState.WAITING, Wait.UPSTREAM)


def test_to_be_told_by_a_breaker_is_no_look(passing: Passing) -> None:
    """Ten seconds of a breaker, or another's probe, end no wait, though it was over while nothing of ours ran."""
    upstream = Upstream(passing.workers, 503)
    job = passing.house.job()
    until_it_waits(passing, job)
    passing.passes(2 * DAY)
    until = passing.house.row(job).expires_at
    _until_its_hosts_breaker_is_open_to(passing, job)
    assert _parked_for_an_upstream(passing, job)
    assert passing.house.row(job).expires_at == until, "which is over still"
    assert passing.house.row(job).due_at > passing.house.database.read(ledger_now), "and nobody polls"
    upstream.away = False
    passing.passes(MINUTE)
    passing.work()
    passing.passes(MINUTE)
    passing.work()
    assert passing.house.row(job).state == JobState.DONE


def _until_its_hosts_breaker_is_open_to(passing: Passing, job: str) -> None:
    """Others' failures open it, a moment before *job* comes."""
    for other in [passing.house.job(text=f"{number}") for number in range(5)]:
        passing.workers.work(other, passing.settings)
    reconcile.wake_due(passing.house.database)
    passing.workers.work(job, passing.settings)


def test_where_calls_of_others_found_it_away_all_the_time_a_wait_ends_by_them(passing: Passing) -> None:
    """A line is longer than the probes of a day: those behind it would wait for as long as it is away, and longer."""
    upstream = Upstream(passing.workers, 503)
    passing.settings = StepSettings(upstream_wait=2 * HOUR)
    jobs_ = [passing.house.job(text=f"{number:02}") for number in range(60)]
    for _ in range(3 * HOUR // MINUTE):
        passing.work()
        passing.passes(MINUTE)
    assert passing.states() == {JobState.DEAD}
    assert upstream.asked < len(jobs_), "not all of them looked"
    steps = steps_of(passing.house)
    assert [step.state for step in steps] == [StepState.FAILED] * len(jobs_), "by the calls of others as by their own"
    assert any(step.error.endswith(" is away, and did not come back in time") for step in steps)


def test_what_was_sent_long_ago_for_another_reason_makes_no_wait_shorter(passing: Passing) -> None:
    """It was answered, and waited for two days for a person to connect: that was not the upstream's doing."""
    upstream = Upstream(passing.workers, 401)
    job = passing.house.job()
    passing.work()
    assert [row.status for row in attempts_of(passing.house)] == [401, 401]
    assert passing.house.row(job).wait == Wait.CONSENT
    passing.passes(2 * DAY)
    upstream.away = False
    passing.workers.ada_connects_anew()
    upstream.away, upstream.status = True, 503
    _until_its_hosts_breaker_is_open_to(passing, job)
    assert _parked_for_an_upstream(passing, job)
    left = passing.house.row(job).expires_at - passing.house.database.read(ledger_now)
    assert left > DAY - MINUTE


def _waits_two_days_for_a_person(passing: Passing, job: str) -> None:
    passing.workers.provider.call = lambda token: reply({}, 401)
    passing.passes(HOUR)
    passing.work()
    assert passing.house.row(job).wait == Wait.CONSENT
    passing.passes(2 * DAY)
    passing.workers.ada_connects_anew()


def test_an_outage_of_some_hours_is_not_charged_to_a_step_that_fails_once_days_later(passing: Passing) -> None:
    upstream = Upstream(passing.workers, 503)
    job = passing.house.job()
    for _ in range(3 * HOUR // (5 * MINUTE)):
        passing.work()
        passing.passes(5 * MINUTE)
    free = [row for row in attempts_of(passing.house) if row.counts_as == CountsAs.UNSPENT]
    assert len(free) > passing.settings.attempts
    _waits_two_days_for_a_person(passing, job)
    passing.workers.provider.call = lambda token: reply({}, 502)
    passing.work()
    assert passing.house.row(job).state == JobState.QUEUED
    upstream.away = False
    passing.workers.provider.call = upstream.call  # type: ignore[assignment]
    passing.passes(HOUR)
    passing.work()
    assert passing.house.row(job).state == JobState.DONE


def test_the_time_that_a_job_waits_for_people_is_none_of_a_rate_limits(passing: Passing) -> None:
    passing.workers.provider.call = lambda token: reply({}, 429, retry_after="60")
    job = passing.house.job()
    for _ in range(3):
        passing.work()
        passing.passes(HOUR)
    _waits_two_days_for_a_person(passing, job)
    passing.workers.provider.call = lambda token: reply({}, 429, retry_after="60")
    for _ in range(20):
        passing.work()
        passing.passes(HOUR)
    assert passing.house.row(job).state == JobState.QUEUED
    made = [row.counts_as for row in attempts_of(passing.house) if row.status == 429]
    assert made == [CountsAs.UNSPENT] * 23
    for _ in range(20):
        passing.work()
        passing.passes(HOUR)
    assert passing.house.row(job).state == JobState.DEAD
    assert len(attempts_of(passing.house)) < 23 + 20, "from the day's end each counts, and those before it do not"


def test_a_call_in_doubt_is_asked_about_where_its_upstream_does_not_come_back(passing: Passing) -> None:
    Upstream(passing.workers, None)
    _says_by(passing, KeyedSay)
    made = [passing.house.job(text=f"{number:02}") for number in range(8)]
    passing.settings = StepSettings(upstream_wait=2 * HOUR)
    for _ in range(3 * HOUR // (3 * MINUTE)):
        passing.work()
        passing.passes(3 * MINUTE)
    sent = {row.job_id for row in attempts_of(passing.house)}
    assert sent
    for row in map(passing.house.row, made):
        if row.id in sent:
            assert (row.state, row.wait) == (JobState.WAITING, Wait.UNKNOWN), row.reason
            assert "did not come back in time: look at github" in row.reason
        else:
            assert row.state == JobState.DEAD


def test_a_keyed_write_is_not_sent_again_once_its_key_may_be_forgotten(passing: Passing) -> None:
    """Whatever it waited for in between, and however often that wait began anew."""
    upstream = Upstream(passing.workers, None)
    passing.settings = StepSettings(upstream_wait=9 * DAY, attempts=100)
    _says_by(passing, KeyedSay)
    job = passing.house.job()
    passing.work()
    assert [row.state for row in attempts_of(passing.house)] == [AttemptState.UNKNOWN]
    for until, status in ((10 * HOUR, 429), (20 * HOUR, 503)):
        upstream.status = status
        while passing.now < 1_000 + until.total_seconds():
            passing.passes(HOUR)
            passing.work()
    upstream.away = False
    passing.passes(HOUR)
    before = len(attempts_of(passing.house))
    passing.passes(2 * HOUR)
    passing.work()
    assert len(attempts_of(passing.house)) == before
    assert upstream.did == []
    row = passing.house.row(job)
    assert (row.state, row.wait) == (JobState.WAITING, Wait.UNKNOWN)
    assert "forgotten its key" in row.reason


@pytest.mark.parametrize(("since", "opens"), [(21 * HOUR, True), (22 * HOUR, False)])
def test_no_attempt_opens_after_a_call_whose_key_may_be_forgotten(
    passing: Passing, since: timedelta, opens: bool
) -> None:
    """Not even where its run had looked, and was stopped for hours: the opening goes by the ledger's clock."""
    house = passing.house
    first = intent_of(house, house.claim(house.job()))
    open_(house, first)
    close(house, first, AttemptState.UNKNOWN, StepState.UNKNOWN)
    passing.passes(since)
    again = replace(
        first,
        attempt="att-2",
        again=True,
        repeats_unknown=True,
        repeats_for=KeyedSay.facts.repeats_for,
        new_account="acc-2",
    )
    assert isinstance(open_(house, again), Opened) is opens


def test_a_keyed_write_is_sent_again_while_its_key_is_known(passing: Passing) -> None:
    upstream = Upstream(passing.workers, None)
    _says_by(passing, KeyedSay)
    job = passing.house.job()
    passing.work()
    upstream.away = False
    passing.passes(20 * HOUR)
    passing.work()
    assert passing.house.row(job).state == JobState.DONE
    assert len(upstream.did) == 1


def test_what_else_a_step_is_put_back_for_does_not_begin_its_wait_anew(passing: Passing) -> None:
    Upstream(passing.workers, 503)
    first = passing.house.job()
    until_it_waits(passing, first)
    job = passing.house.job()  # which is never sent
    passing.work()
    until = passing.house.row(job).expires_at
    assert passing.house.row(job).wait == Wait.UPSTREAM
    for _ in range(3):
        _due(passing, job)
        back = partial(ledger_jobs.requeue, job=passing.house.claim(job), delay=timedelta(), reason="stopped")
        assert passing.house.database.write(back) is JobState.QUEUED
    passing.work()
    assert passing.house.row(job).expires_at == until


def _due(passing: Passing, job: str) -> None:
    due = update(jobs).where(jobs.c.id == job).values(due_at=passing.house.database.read(ledger_now))
    passing.house.database.write(lambda c: c.execute(due).rowcount)
    reconcile.wake_due(passing.house.database)


def test_what_is_known_is_stored_before_a_redis_that_hangs_is_told(passing: Passing) -> None:
    seen: list[str] = []

    class Slow(Breakers):
        def answered(self, errand: Errand) -> None:
            seen.extend(row.state for row in attempts_of(passing.house))

        def failed(self, errand: Errand, *, may_be_own: bool) -> timedelta | None:
            seen.extend(row.state for row in attempts_of(passing.house))
            return None

        def enter(self, errand: Errand) -> timedelta | Passed:
            return Passed(known=True)

    class SlowBudgets(Budgets):
        def told(self, budget: Budget, limits: Limits, *, pause: timedelta | None) -> None:
            seen.extend(row.state for row in attempts_of(passing.house))

    passing.workers.shared = {"breakers": Slow(None), "budgets": SlowBudgets(None)}
    upstream = Upstream(passing.workers, 503)
    _says_by(passing, CountedSay)
    passing.house.job()
    passing.work()
    assert seen == [AttemptState.NO_EFFECT] * 2
    upstream.away = False
    passing.passes(MINUTE)
    passing.work()
    assert seen[2:] == [AttemptState.NO_EFFECT, AttemptState.EFFECT] * 2
