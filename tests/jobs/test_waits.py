"""Waits: who looks again when, until when, and how those that are due are found among all that wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import Connection, insert, text, update

from identity.errors import BadInput
from identity.model import AccountKey, AccountState
from identity.tables import accounts
from pipeline.duties import reconcile
from pipeline.jobs import awaited, claims, waits
from pipeline.jobs.claims import ClaimedJob
from pipeline.jobs.intents import Adopted, Ended, Intent
from pipeline.jobs.moves import move_job
from pipeline.ledger.clock import ledger_now
from pipeline.states import AttemptState, JobState, StepState, Wait
from pipeline.tables import attempts, steps
from pipeline.tables import jobs as jobs_table
from tests.ledger.acts import attempts_of, audit_kinds, close, done, open_, steps_of
from tests.ledger.house import House
from tests.ledger.house import intent_of as intent
from tests.ledger.plans import plans, plans_of, statements_of
from tests.ledger.resolutions import resolve


def _owner_in_doubt(house: House) -> Intent:
    """The owner of a once key whose call got no answer."""
    owner = intent(house, house.claim(house.job()), once="pull#1")
    open_(house, owner)
    close(house, owner, AttemptState.UNKNOWN, StepState.UNKNOWN)
    return owner


def _wait_for_it(house: House, job: str) -> None:
    assert isinstance(open_(house, intent(house, house.claim(job), once="pull#1")), Ended)
    assert house.row(job).wait == Wait.ONCE


def _due(house: House, job: str) -> None:
    """Its time to look again comes."""
    due = update(jobs_table).where(jobs_table.c.id == job).values(due_at=datetime.now(UTC) - timedelta(seconds=1))
    house.database.write(lambda c: c.execute(due).rowcount)
    reconcile.wake_due(house.database)


def test_who_waits_for_a_call_in_doubt_looks_again_after_a_minute_not_every_second(house: House) -> None:
    _owner_in_doubt(house)
    job = house.job()
    before = house.database.read(ledger_now)
    _wait_for_it(house, job)
    assert house.row(job).due_at - before >= timedelta(minutes=1)


def test_who_waits_for_a_call_on_the_wire_looks_again_once_that_is_settled(house: House) -> None:
    owner = intent(house, house.claim(house.job()), once="pull#1")
    open_(house, owner)
    job = house.job()
    before = house.database.read(ledger_now)
    _wait_for_it(house, job)
    assert timedelta(seconds=5) < house.row(job).due_at - before < timedelta(minutes=1)


def test_who_waits_for_a_once_key_of_any_length_is_woken_by_its_owner(house: House) -> None:
    first, second = (intent(house, house.claim(house.job()), once="k" * 200) for _ in range(2))
    open_(house, first)
    assert isinstance(open_(house, second), Ended)
    assert house.row(second.job.id).wait == Wait.ONCE
    done(house, first)
    assert house.row(second.job.id).state == JobState.QUEUED


def _park_refused(house: House, job: str, *, looks: timedelta = timedelta(minutes=10)) -> ClaimedJob:
    claimed = house.claim(job)
    for_ada = awaited.consent_of(AccountKey(tenant="acme", connection="gh", principal="acme.ada"))
    days = timedelta(days=14)
    park = partial(
        claims.park, job=claimed, wait=Wait.CONSENT, waits_for=for_ada, due_in=looks, expires_in=days, reason="no token"
    )
    assert house.database.write(park) is JobState.WAITING
    return claimed


@pytest.mark.parametrize("spends_run", [False, True], ids=["queued again", "a run spent"])
def test_a_refused_account_is_waited_for_as_long_whatever_hiccup_its_looks_meet(house: House, spends_run: bool) -> None:
    job = house.job()
    _park_refused(house, job)
    until = datetime.now(UTC) + timedelta(days=1)  # the thirteenth day has come
    ends = update(jobs_table).where(jobs_table.c.id == job).values(expires_at=until)
    house.database.write(lambda c: c.execute(ends).rowcount)
    _due(house, job)
    looks, at_once = house.claim(job), timedelta()
    killed = partial(claims.spend_run, job=job, fence=looks.fence, limit=5, delay=at_once, reason="killed")
    away = partial(claims.requeue, job=looks, delay=at_once, reason="its rate limit is used up")
    assert house.database.write(killed if spends_run else away) is JobState.QUEUED
    _park_refused(house, job, looks=timedelta(days=2))
    assert (house.row(job).expires_at, house.row(job).due_at) == (until, until)
    _due(house, job)
    had_its_token = intent(house, house.claim(job))
    open_(house, had_its_token)
    close(house, had_its_token, AttemptState.NO_EFFECT, StepState.OPEN)
    yields = partial(claims.requeue, job=had_its_token.job, delay=at_once, reason="the API is away")
    assert house.database.write(yields) is JobState.QUEUED
    _park_refused(house, job)
    assert house.row(job).expires_at > until


def test_who_was_refused_and_is_to_be_connected_by_a_person_now_has_as_long_for_that(house: House) -> None:
    job = house.job()
    _park_refused(house, job)
    until = house.row(job).expires_at
    wanted = update(accounts).values(state=AccountState.NEEDS_RECONNECT)
    house.database.write(lambda c: c.execute(wanted).rowcount)
    _due(house, job)
    assert isinstance(open_(house, intent(house, house.claim(job))), Ended)
    row = house.row(job)
    assert (row.wait, row.waits_for) == (Wait.CONSENT, "account:acme/gh/acme.ada")
    assert min(row.due_at, row.expires_at) > until


def test_who_looks_for_a_once_key_again_and_again_waits_until_when_they_first_did(house: House) -> None:
    _owner_in_doubt(house)
    job = house.job()
    _wait_for_it(house, job)
    first = house.row(job).expires_at
    for _ in range(2):
        _due(house, job)
        assert house.row(job).state == JobState.QUEUED
        _wait_for_it(house, job)
    assert house.row(job).expires_at == first
    assert audit_kinds(house).count("job.parked") == 1  # its story says that it waited, once
    past = update(jobs_table).where(jobs_table.c.id == job).values(expires_at=datetime.now(UTC))
    house.database.write(lambda c: c.execute(past).rowcount)
    _due(house, job)
    assert house.row(job).state == JobState.DEAD


def test_who_had_the_result_of_a_once_key_waits_for_it_no_more(house: House) -> None:
    owner = intent(house, house.claim(house.job()), once="pull#1")
    open_(house, owner)
    job = house.job()
    _wait_for_it(house, job)
    _due(house, job)
    waiter = intent(house, house.claim(job), once="pull#1")
    done(house, owner)
    assert isinstance(open_(house, waiter), Adopted)
    assert (house.row(job).waits_for, house.row(job).expires_at) == (None, None)


def test_who_then_waits_for_something_else_waits_for_that_as_long_as_anyone(house: House) -> None:
    _owner_in_doubt(house)
    job = house.job()
    _wait_for_it(house, job)
    first = house.row(job).expires_at
    _due(house, job)
    hour = timedelta(hours=1)
    park = partial(claims.park, wait=Wait.CONSENT, waits_for="account:x", due_in=hour, expires_in=hour, reason="ada")
    house.database.write(partial(park, job=house.claim(job)))
    assert house.row(job).expires_at < first


@pytest.mark.parametrize("in_time", [True, False], ids=["in-time", "long-after"])
def test_who_waits_for_a_persons_word_goes_on_once_an_answer_came_late_after_all(house: House, in_time: bool) -> None:
    asked = intent(house, house.claim(house.job()))
    open_(house, asked)
    close(house, asked, AttemptState.UNKNOWN, StepState.UNKNOWN)
    soon, late, job = timedelta(minutes=1), timedelta(days=14), asked.job.id
    park = partial(
        claims.park, wait=Wait.UNKNOWN, waits_for=None, due_in=soon, expires_in=late, reason="look at github"
    )
    house.database.write(partial(park, job=asked.job))
    _due(house, job)
    row, now = house.row(job), house.database.read(ledger_now)
    assert row.state == JobState.WAITING
    assert now < row.due_at <= now + timedelta(hours=1), "an answer that comes late rings for nobody"
    done(house, asked)
    if not in_time:
        past = update(jobs_table).where(jobs_table.c.id == job).values(expires_at=datetime.now(UTC))
        house.database.write(lambda c: c.execute(past).rowcount)
    _due(house, job)
    assert house.row(job).state == JobState.QUEUED


def test_who_waits_for_a_persons_word_that_never_came_is_dead(house: House) -> None:
    asked = intent(house, house.claim(house.job()))
    open_(house, asked)
    close(house, asked, AttemptState.UNKNOWN, StepState.UNKNOWN)
    soon = timedelta(0)
    park = partial(
        claims.park, wait=Wait.UNKNOWN, waits_for=None, due_in=soon, expires_in=soon, reason="look at github"
    )
    house.database.write(partial(park, job=asked.job))
    _due(house, asked.job.id)
    row = house.row(asked.job.id)
    assert (row.state, row.reason) == (JobState.DEAD, "nobody came in time: look at github")


@pytest.mark.parametrize("wait", [Wait.TIME, Wait.ONCE, Wait.APPROVAL, Wait.UNKNOWN])
def test_a_due_wait_of_a_job_that_was_cancelled_meanwhile_wakes_nothing(house: House, wait: Wait) -> None:
    job, hour = house.job(), timedelta(hours=1)
    park = partial(claims.park, wait=wait, waits_for=None, due_in=hour, expires_in=hour, reason="z")
    claimed = house.claim(job)
    house.database.write(partial(park, job=claimed))
    house.database.write(partial(move_job, job=job, to=JobState.CANCELLED))
    end = partial(waits.end_wait, job=job, fence=claimed.fence, wait=wait, expired=False, reason="z")
    assert house.database.write(end) is None
    assert house.row(job).state == JobState.CANCELLED


def test_all_who_wait_for_one_thing_are_woken_at_once_and_nobody_else(house: House) -> None:
    """One statement, however many: it runs under the lock of the account that they wait for."""
    hour = timedelta(hours=1)
    park = partial(claims.park, wait=Wait.CONSENT, due_in=hour, expires_in=hour, reason="z")
    waiting = dict.fromkeys((house.job() for _ in range(5)), "account:ada") | {house.job(): "account:eve"}
    for job, what in waiting.items():
        house.database.write(partial(park, job=house.claim(job), waits_for=what))
    woken: list[str] = []
    wake = partial(awaited.wake, waits_for="account:ada")
    assert len(statements_of(lambda: woken.extend(house.database.write(wake)))) == 1
    assert set(woken) == {job for job, awaited in waiting.items() if awaited == "account:ada"}
    assert {job for job in waiting if house.row(job).state == JobState.QUEUED} == set(woken)


def test_a_wait_that_expires_as_its_job_goes_on_buries_nothing(house: House) -> None:
    claimed = house.claim(house.job())
    end = partial(waits.end_wait, job=claimed.id, fence=claimed.fence, wait=Wait.CONSENT, expired=True, reason="z")
    assert house.database.write(end) is None
    assert house.row(claimed.id).state == JobState.RUNNING


def _many(house: House, *, due: int) -> None:
    """Many that wait for long; of the last reasons, so many that are due, the newest first."""
    kept = dict(house.row(house.job())._mapping)
    now = datetime.now(UTC)

    def row(n: int, wait: Wait, due_in: timedelta) -> dict[str, object]:
        return {**kept, "id": f"w{n}", "state": JobState.WAITING, "wait": wait, "due_at": now + due_in}

    rows = [row(n, tuple(Wait)[n % len(Wait)], timedelta(days=1)) for n in range(3000)]
    rows += [row(9000 + n, (Wait.TIME, Wait.ONCE)[n % 2], -timedelta(minutes=1 + n)) for n in range(due)]
    house.database.write(lambda c: c.execute(insert(jobs_table), rows).rowcount)
    house.database.write(lambda c: c.execute(text("analyze")).rowcount)


@pytest.mark.as_owner
def test_the_waits_that_are_due_for_longest_come_first_whatever_they_wait_for(house: House) -> None:
    _many(house, due=6)
    found = house.database.read(partial(waits.due_waits, limit=4))
    assert [row.id for row in found] == ["w9005", "w9004", "w9003", "w9002"]
    assert [row.wait for row in found] == [Wait.ONCE, Wait.TIME, Wait.ONCE, Wait.TIME]


@pytest.mark.as_owner
def test_the_waits_that_are_due_are_looked_up_among_all_that_wait(house: House) -> None:
    _many(house, due=2)
    (plan,) = plans(house.database, partial(waits.due_waits, limit=200), large=True)
    found = [line for line in plan.splitlines() if "ix_jobs_waiting" in line]
    assert len(found) == len(Wait), plan
    if house.database.engine.dialect.name == "sqlite":
        assert all("(wait=? AND due_at<?)" in line for line in found), plan
        assert "SCAN jobs" not in plan
    else:
        looked_up = [line for line in plan.splitlines() if "Index Cond" in line]
        assert len(looked_up) == len(Wait), plan
        assert all("wait" in line and "due_at <=" in line for line in looked_up), plan
        assert "Seq Scan on jobs" not in plan


@pytest.mark.as_owner
def test_the_calls_in_doubt_of_a_job_are_looked_up_by_its_steps_however_many_others_there_are(house: House) -> None:
    asked = _owner_in_doubt(house)
    (step,), (call,) = steps_of(house), attempts_of(house)
    other = house.job()

    def fill(c: Connection) -> None:
        of_other = [{"id": f"s{n}", "job_id": other, "position": n} for n in range(3000)]
        c.execute(insert(steps), [{**step._mapping, **one} for one in of_other])
        calls = [{"id": f"a{n}", "job_id": other, "step_id": f"s{n}"} for n in range(3000)]
        c.execute(insert(attempts), [{**call._mapping, **one} for one in calls])
        c.execute(text("analyze"))

    house.database.write(fill)
    park = partial(claims.park, waits_for=None, due_in=timedelta(), expires_in=timedelta(days=1), reason="nobody knows")
    house.database.write(partial(park, job=asked.job, wait=Wait.UNKNOWN))

    def look() -> None:
        end = partial(waits.end_wait, job=asked.job.id, fence=asked.job.fence, wait=Wait.UNKNOWN)
        house.database.write(partial(end, expired=False, reason="z"))
        with pytest.raises(BadInput, match="another call"):
            resolve(house, asked.job.id, ["another"])

    told = [plan for plan in plans_of(house.database, look, large=True) if "attempts" in plan]
    assert len(told) == 2, "housekeeping's look, and a person's word"
    for plan in told:
        assert "ix_attempts_step" in plan
        assert "SCAN attempts" not in plan
        assert "Seq Scan" not in plan
