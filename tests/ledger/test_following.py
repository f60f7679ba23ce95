"""A follower of jobs is told each turn and each step once, in order, and forgets what has ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import Connection, update

from pipeline.jobs import awaited, claims
from pipeline.states import AttemptState, StepState, Wait
from pipeline.steps import openings
from pipeline.tables import jobs as jobs_table
from pipeline.views.job_tail import Following, Moved
from tests.ledger.acts import close
from tests.ledger.house import House, intent_of


def told(moved: list[Moved]) -> list[str]:
    return [f"{one.step['position']} {one.step['state']}" if one.step else one.job["state"] for one in moved]


def test_each_turn_and_each_step_is_told_once_and_in_order(house: House) -> None:
    following = Following(since=datetime.now(UTC) - timedelta(seconds=1))
    look = partial(house.database.read, following.look)
    assert told(look()) == []
    job = house.job()
    assert told(look()) == ["queued"]
    asked = intent_of(house, claimed := house.claim(job))
    house.database.write(partial(openings.open_attempt, intent=asked))
    assert told(look()) == ["running", "1 open"]
    assert told(look()) == []
    close(house, asked, AttemptState.EFFECT, StepState.DONE, result={"id": "1"}, external_id="1")
    assert told(look()) == ["1 done"]
    house.database.write(partial(claims.finish, job=claimed))
    assert told(look()) == ["done"]
    assert told(look()) == []


def test_a_step_that_ends_with_its_job_is_told_before_the_end(house: House) -> None:
    following = Following(since=datetime.now(UTC) - timedelta(seconds=1))
    asked = intent_of(house, claimed := house.claim(house.job()))
    house.database.write(partial(openings.open_attempt, intent=asked))
    close(house, asked, AttemptState.NO_EFFECT, StepState.FAILED, error="404")
    house.database.write(partial(claims.bury, job=claimed, reason="ActionFailed: 404"))
    assert told(house.database.read(following.look)) == ["1 failed", "dead"]


def test_what_ended_long_ago_is_forgotten_and_what_waits_is_not(house: House) -> None:
    hour, waiting = timedelta(hours=1), house.job()
    following = Following(since=datetime.now(UTC) - timedelta(days=2))
    look = partial(house.database.read, following.look)
    park = partial(claims.park, wait=Wait.CONSENT, waits_for="account:x", due_in=hour, expires_in=hour, reason="ada")
    house.database.write(partial(park, job=house.claim(waiting)))
    house.database.write(partial(claims.finish, job=house.claim(house.job())))
    house.database.write(_a_day_ago)
    assert sorted(told(look())) == ["done", "waiting"]
    new = house.job()
    assert told(look()) == ["queued"]
    assert sorted(following._seen) == sorted([waiting, new])
    house.database.write(lambda c: awaited.wake(c, "account:x"))
    assert told(look()) == ["queued"]


def _a_day_ago(c: Connection) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    c.execute(update(jobs_table).values(created_at=yesterday))
