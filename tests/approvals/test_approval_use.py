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
from pipeline.approvals.requested import NotApproved, move_approval
from pipeline.jobs import awaited
from pipeline.jobs.intents import Adopted, ApprovalMoved, Approved, Ended, Opened
from pipeline.jobs.moves import move_job
from pipeline.states import ApprovalState, AttemptState, JobState, StepState, Wait
from pipeline.steps.replay import replay_job
from tests.ledger.acts import close, done, open_, until_awaited
from tests.ledger.approval_case import ApprovalCase
from tests.ledger.house import House, intent_of
from tests.ledger.links import SLACK, linked, taken_back

ADA = AccountKey(tenant="acme", connection="gh", principal="acme.ada")


@pytest.fixture
def case(house: House) -> ApprovalCase:
    return ApprovalCase(house)


def approved(case: ApprovalCase) -> Approved:
    """Bob says yes in Slack, and the next run finds it."""
    case.ask()
    linked(case.house, "acme.bob", "slack", "U1")
    case.say("acme.bob", **SLACK)
    case.again()
    given = case.ask()
    assert isinstance(given, Approved)
    return given


def await_consent(case: ApprovalCase, given: Approved) -> None:
    """The job comes to its step, and ada has to connect first."""
    dead = update(accounts).where(accounts.c.id == "acc-acme.ada").values(state=AccountState.NEEDS_RECONNECT)
    case.house.database.write(lambda c: c.execute(dead).rowcount)
    assert isinstance(case.open(approval=given, step="step_1"), Ended)
    assert case.house.row(case.job.id).wait == Wait.CONSENT


def consented(case: ApprovalCase) -> None:
    case.house.connect("acme", "acme.ada")
    case.house.database.write(lambda c: awaited.wake(c, awaited.consent_of(ADA)))
    case.again()


def need_refresh(case: ApprovalCase, given: Approved) -> None:
    """The token is too old, so the coordinator is asked for another in between."""
    lease = replace(case.intent().lease, after_generation=1)
    assert isinstance(case.open(approval=given, step="step_1", lease=lease), NeedsRefresh)


def refreshed(case: ApprovalCase) -> None:
    case.house.connect("acme", "acme.ada")


HINDERED = pytest.mark.parametrize(("hindered", "over"), [(await_consent, consented), (need_refresh, refreshed)])


@HINDERED
def test_a_yes_that_is_taken_back_before_the_step_has_opened_opens_nothing(
    case: ApprovalCase, hindered: Callable[[ApprovalCase, Approved], None], over: Callable[[ApprovalCase], None]
) -> None:
    given = approved(case)
    hindered(case, given)
    assert case.house.database.write(partial(taken_back, provider="slack", external_id="U1")) == [given.id]
    over(case)
    assert isinstance(case.open(approval=given), ApprovalMoved)
    assert isinstance(case.ask(), Ended)
    assert (case.row.state, case.row.id != given.id) == (ApprovalState.OPEN, True)


@HINDERED
def test_an_approval_whose_time_is_over_before_the_step_has_opened_is_a_no(
    case: ApprovalCase, hindered: Callable[[ApprovalCase, Approved], None], over: Callable[[ApprovalCase], None]
) -> None:
    given = approved(case)
    hindered(case, given)
    case.pass_time()
    over(case)
    assert isinstance(case.open(approval=given), ApprovalMoved)
    refused = case.ask()
    assert isinstance(refused, NotApproved)
    assert refused.reason == f"github.Say was approved, and had not opened when that expired (approval {given.id})"
    assert case.row.state == ApprovalState.EXPIRED


@HINDERED
def test_a_step_that_has_opened_goes_on_by_the_approval_it_was_opened_with(
    case: ApprovalCase, hindered: Callable[[ApprovalCase, Approved], None], over: Callable[[ApprovalCase], None]
) -> None:
    """Its call had no effect. That its approval was used is not said anew."""
    given = approved(case)
    first = case.intent(approval=given, step="step_1")
    assert isinstance(open_(case.house, first), Opened)
    used = case.row.used_at
    close(case.house, first, AttemptState.NO_EFFECT, StepState.OPEN, error="busy")
    case.pass_time()
    assert case.house.database.write(partial(taken_back, provider="slack", external_id="U1")) == []
    hindered(case, given)
    over(case)
    assert case.ask() == given
    assert isinstance(case.open(approval=given, step="step_1", again=True), Opened)
    assert (case.row.state, case.row.used_at) == (ApprovalState.APPROVED, used)


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_an_opening_beside_the_end_of_its_approval_waits_for_it(case: ApprovalCase) -> None:
    """A worker that lost the job finds that the time is over. SQLite has one writer anyway."""
    given, outcomes = approved(case), list[object]()
    opening = threading.Thread(target=lambda: outcomes.append(case.open(approval=given)))
    expire = partial(move_approval, held=case.row, to=ApprovalState.EXPIRED, reason="it expired", now=datetime.now(UTC))
    assert until_awaited(case.house.database, expire, by=opening)
    assert outcomes == [ApprovalMoved()]


def cancelled(case: ApprovalCase, given: Approved) -> None:
    case.house.database.write(partial(move_job, job=case.job.id, to=JobState.CANCELLED))


def dead(case: ApprovalCase, given: Approved) -> None:
    case.house.database.write(partial(move_job, job=case.job.id, to=JobState.DEAD))


def accepted_anew(case: ApprovalCase, given: Approved) -> None:
    dead(case, given)
    case.house.database.write(partial(replay_job, job=case.job.id, by="cli:test", at=datetime.now(UTC)))


def done_by_another(case: ApprovalCase, given: Approved) -> None:
    """The step's once key was another job's, and its job goes on."""
    other = intent_of(case.house, case.house.claim(case.house.job("other")), once="key")
    assert isinstance(open_(case.house, other), Opened)
    done(case.house, other)
    assert isinstance(case.open(approval=given, once="key"), Adopted)
    assert case.house.row(case.job.id).state == JobState.RUNNING


@pytest.mark.parametrize("settled", [cancelled, dead, accepted_anew, done_by_another])
def test_what_nobody_asks_for_again_is_not_said_to_be_void(
    case: ApprovalCase, settled: Callable[[ApprovalCase, Approved], None]
) -> None:
    settled(case, approved(case))
    write: Callable[[Connection], list[str]] = partial(taken_back, provider="slack", external_id="U1")
    assert case.house.database.write(write) == []
    assert (case.row.state, case.row.used_at) == (ApprovalState.APPROVED, None)
