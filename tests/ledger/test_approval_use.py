"""An approval is used when its step opens, and not before: until then it can be taken back, and runs out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest
from sqlalchemy import Connection, update

from identity.model import AccountKey, AccountState, NeedsRefresh
from identity.tables import accounts
from pipeline.ledger import jobs
from pipeline.ledger.approvals import NotApproved, move_approval
from pipeline.ledger.intents import Adopted, ApprovalMoved, Approved, Ended, Opened
from pipeline.ledger.moving import move_job
from pipeline.ledger.replay import replay
from pipeline.states import ApprovalState, AttemptState, JobState, StepState, Wait
from tests.ledger.acts import close, done, open_, until_awaited
from tests.ledger.desk import Desk
from tests.ledger.house import House, intent_of
from tests.ledger.links import SLACK, linked, taken_back

ADA = AccountKey(tenant="acme", connection="gh", principal="acme.ada")


@pytest.fixture
def desk(house: House) -> Desk:
    return Desk(house)


def approved(desk: Desk) -> Approved:
    """Bob says yes in Slack, and the next run finds it."""
    desk.ask()
    linked(desk.house, "acme.bob", "slack", "U1")
    desk.say("acme.bob", **SLACK)
    desk.again()
    given = desk.ask()
    assert isinstance(given, Approved)
    return given


def await_consent(desk: Desk, given: Approved) -> None:
    """The job comes to its step, and ada has to connect first."""
    dead = update(accounts).where(accounts.c.id == "acc-acme.ada").values(state=AccountState.NEEDS_RECONNECT)
    desk.house.database.write(lambda c: c.execute(dead).rowcount)
    assert isinstance(desk.open(approval=given, step="step_1"), Ended)
    assert desk.house.row(desk.job.id).wait == Wait.CONSENT


def consented(desk: Desk) -> None:
    desk.house.connect("acme", "acme.ada")
    desk.house.database.write(lambda c: jobs.wake(c, jobs.consent_of(ADA)))
    desk.again()


def need_refresh(desk: Desk, given: Approved) -> None:
    """The token is too old, so the coordinator is asked for another in between."""
    lease = replace(desk.intent().lease, after_generation=1)
    assert isinstance(desk.open(approval=given, step="step_1", lease=lease), NeedsRefresh)


def refreshed(desk: Desk) -> None:
    desk.house.connect("acme", "acme.ada")


HINDERED = pytest.mark.parametrize(("hindered", "over"), [(await_consent, consented), (need_refresh, refreshed)])


@HINDERED
def test_a_yes_that_is_taken_back_before_the_step_has_opened_opens_nothing(
    desk: Desk, hindered: Callable[[Desk, Approved], None], over: Callable[[Desk], None]
) -> None:
    given = approved(desk)
    hindered(desk, given)
    assert desk.house.database.write(partial(taken_back, provider="slack", external_id="U1")) == [given.id]
    over(desk)
    assert isinstance(desk.open(approval=given), ApprovalMoved)
    assert isinstance(desk.ask(), Ended)
    assert (desk.row.state, desk.row.id != given.id) == (ApprovalState.OPEN, True)


@HINDERED
def test_an_approval_whose_time_is_over_before_the_step_has_opened_is_a_no(
    desk: Desk, hindered: Callable[[Desk, Approved], None], over: Callable[[Desk], None]
) -> None:
    given = approved(desk)
    hindered(desk, given)
    desk.pass_time()
    over(desk)
    assert isinstance(desk.open(approval=given), ApprovalMoved)
    refused = desk.ask()
    assert isinstance(refused, NotApproved)
    assert refused.reason == f"github.Say was approved, and had not opened when that expired (approval {given.id})"
    assert desk.row.state == ApprovalState.EXPIRED


@HINDERED
def test_a_step_that_has_opened_goes_on_by_the_approval_it_was_opened_with(
    desk: Desk, hindered: Callable[[Desk, Approved], None], over: Callable[[Desk], None]
) -> None:
    """Its call had no effect. That its approval was used is not said anew."""
    given = approved(desk)
    first = desk.intent(approval=given, step="step_1")
    assert isinstance(open_(desk.house, first), Opened)
    used = desk.row.used_at
    close(desk.house, first, AttemptState.NO_EFFECT, StepState.OPEN, error="busy")
    desk.pass_time()
    assert desk.house.database.write(partial(taken_back, provider="slack", external_id="U1")) == []
    hindered(desk, given)
    over(desk)
    assert desk.ask() == given
    assert isinstance(desk.open(approval=given, step="step_1", number=2), Opened)
    assert (desk.row.state, desk.row.used_at) == (ApprovalState.APPROVED, used)


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_an_opening_beside_the_end_of_its_approval_waits_for_it(desk: Desk) -> None:
    """A worker that lost the job finds that the time is over. SQLite has one writer anyway."""
    given, outcomes = approved(desk), list[object]()
    opening = threading.Thread(target=lambda: outcomes.append(desk.open(approval=given)))
    expire = partial(move_approval, held=desk.row, to=ApprovalState.EXPIRED, reason="it expired", now=datetime.now(UTC))
    assert until_awaited(desk.house.database, expire, by=opening)
    assert outcomes == [ApprovalMoved()]


def cancelled(desk: Desk, given: Approved) -> None:
    desk.house.database.write(partial(move_job, job=desk.job.id, to=JobState.CANCELLED))


def dead(desk: Desk, given: Approved) -> None:
    desk.house.database.write(partial(move_job, job=desk.job.id, to=JobState.DEAD))


def accepted_anew(desk: Desk, given: Approved) -> None:
    dead(desk, given)
    desk.house.database.write(partial(replay, job=desk.job.id, by="cli:test", at=datetime.now(UTC)))


def done_by_another(desk: Desk, given: Approved) -> None:
    """The step's once key was another job's, and its job goes on."""
    other = intent_of(desk.house, desk.house.claim(desk.house.job("other")), once="key")
    assert isinstance(open_(desk.house, other), Opened)
    done(desk.house, other)
    assert isinstance(desk.open(approval=given, once="key"), Adopted)
    assert desk.house.row(desk.job.id).state == JobState.RUNNING


@pytest.mark.parametrize("settled", [cancelled, dead, accepted_anew, done_by_another])
def test_what_nobody_asks_for_again_is_not_said_to_be_void(
    desk: Desk, settled: Callable[[Desk, Approved], None]
) -> None:
    settled(desk, approved(desk))
    write: Callable[[Connection], list[str]] = partial(taken_back, provider="slack", external_id="U1")
    assert desk.house.database.write(write) == []
    assert (desk.row.state, desk.row.used_at) == (ApprovalState.APPROVED, None)
