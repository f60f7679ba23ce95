"""A step fails by the calls of others only if an opening would not have ended it without a call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import update

from identity.audit import Act
from identity.hold import HELD, release_hold, set_hold
from identity.policy.ledger import apply_policy
from identity.tables import provider_connections
from pipeline.action import hash_of
from pipeline.duties import reconcile
from pipeline.run import ActionFailed, Run, StepSkipped
from pipeline.states import AttemptState, JobState, StepState, Wait
from pipeline.throttle.breaker import Breakers, Errand
from pipeline.throttle.breaker_state import Passed
from pipeline.workflow import SKIP
from tests.ledger.acts import attempts_of, close, open_, revoke, steps_of
from tests.ledger.house import Say, account_scope, intent_of
from tests.ledger.outages import DAY, MINUTE, Passing
from tests.ledger.workers import Workers, declare
from tests.ledgers import MOSTLY_SQLITE

pytestmark = MOSTLY_SQLITE


class Away(Breakers):
    """Calls of others have found the host away for days. *before* is done when a step asks how long."""

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        super().__init__(None)
        self.before = before

    def enter(self, errand: Errand) -> timedelta | Passed:
        return MINUTE

    def away_for(self, errand: Errand) -> timedelta:
        self.before()
        return 3 * DAY


@pytest.fixture
def passing(workers: Workers) -> Passing:
    return Passing(workers)


def _says_once(run: Run[Any], event: Any) -> None:
    with suppress(ActionFailed, StepSkipped):
        run.do(Say(text="hello"), as_=run.user, once="said")


def _waits_in_vain(passing: Passing, job: str, before: Callable[[], object] = lambda: None) -> None:
    """*job* waits for its upstream for two days, and then looks."""
    passing.workers.shared["breakers"] = Away(before)
    passing.workers.work(job)
    assert passing.house.row(job).wait == Wait.UPSTREAM
    passing.passes(2 * DAY)
    reconcile.wake_due(passing.house.database)
    passing.workers.work(job)


def _act(**more: Any) -> Act:
    return Act(audit_id=uuid4().hex, by="cli:test", now=datetime.now(UTC), **more)


def _step_of(passing: Passing, job: str) -> Any:
    (step,) = [row for row in steps_of(passing.house) if row.job_id == job]
    return step


def test_what_another_job_did_under_the_once_key_is_adopted(passing: Passing) -> None:
    declare(passing.workers, _says_once)
    first, second = (passing.house.job() for _ in range(2))
    passing.workers.work(first)
    _waits_in_vain(passing, second)
    assert passing.house.row(second).state == JobState.DONE
    step = _step_of(passing, second)
    assert (step.state, step.result) == (StepState.DONE, _step_of(passing, first).result)
    assert len(attempts_of(passing.house)) == 1


def test_what_another_job_may_have_done_under_the_once_key_is_waited_for(passing: Passing) -> None:
    declare(passing.workers, _says_once)
    house = passing.house
    same = hash_of("github.Say", {"text": "hello"})
    owner = intent_of(house, house.claim(house.job()), once="said", request_hash=same)
    open_(house, owner)
    close(house, owner, AttemptState.UNKNOWN, StepState.UNKNOWN)
    job = house.job()
    _waits_in_vain(passing, job)
    row = house.row(job)
    assert (row.state, row.wait) == (JobState.WAITING, Wait.ONCE), row.reason


def test_a_step_whose_once_key_nobody_used_fails(passing: Passing) -> None:
    declare(passing.workers, _says_once)
    job = passing.house.job()
    _waits_in_vain(passing, job)
    assert passing.house.row(job).state == JobState.DONE
    assert _step_of(passing, job).state == StepState.FAILED


def test_a_step_whose_account_was_revoked_meanwhile_is_skipped(passing: Passing) -> None:
    declare(passing.workers, _says_once)
    passing.house.workflow = replace(passing.house.workflow, on_revoke={Say: SKIP})
    job = passing.house.job()
    _waits_in_vain(passing, job, before=lambda: revoke(passing.house, account_scope()))
    assert passing.house.row(job).state == JobState.DONE
    assert _step_of(passing, job).state == StepState.SKIPPED


def test_a_step_that_would_fail_while_it_is_held_waits_for_the_release(passing: Passing) -> None:
    """A hold is often set because of the network, by which the calls of others fail."""
    declare(passing.workers, _says_once)
    house = passing.house
    job = house.job()
    _waits_in_vain(passing, job, before=lambda: house.database.write(partial(set_hold, act=_act(why="the network"))))
    row = house.row(job)
    assert (row.state, row.reason) == (JobState.QUEUED, HELD)
    assert steps_of(house) == []
    house.database.write(partial(release_hold, act=_act()))
    passing.workers.shared["breakers"] = Away()
    passing.workers.work(job)
    assert house.row(job).state == JobState.DONE


def test_a_step_whose_upstream_has_another_address_meanwhile_looks_again(passing: Passing) -> None:
    """The host that was away for days is not the one that it would call by now."""
    declare(passing.workers, _says_once)
    house = passing.house
    job = house.job()
    moves = update(provider_connections).where(provider_connections.c.id == "gh").values(api_url="http://127.0.0.1:1")
    _waits_in_vain(passing, job, before=lambda: house.database.write(lambda c: c.execute(moves).rowcount))
    row = house.row(job)
    assert (row.state, row.reason) == (JobState.QUEUED, "provider connection gh has another address: it looks again")
    assert steps_of(house) == []


def test_a_step_that_was_decided_under_an_older_policy_is_decided_anew(passing: Passing) -> None:
    declare(passing.workers, _says_once)
    house = passing.house
    job = house.job()
    denies = 'format = 1\n[[rule]]\nname = "no"\nwhen = { action = "linear.*" }\ndeny = "no"\n'
    applying = partial(apply_policy, tenant="acme", text=denies, over=None, act=_act())
    _waits_in_vain(passing, job, before=lambda: house.database.write(applying))
    assert house.row(job).state == JobState.QUEUED
    assert steps_of(house) == []
