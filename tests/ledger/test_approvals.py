"""An approval is for exactly what was shown, by others than who asked, in time; and it holds until the step opens."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select, update

from identity.audit import Act
from identity.audit.tables import audit
from identity.model import Scope, ScopeKind
from identity.policy.rules import ApprovalNeed
from identity.sequence import next_number
from pipeline import revocation
from pipeline.approvals.tables import approvals as table
from pipeline.ledger import approvals, openings, waits
from pipeline.ledger.approval_ends import end_some, some_are_over
from pipeline.ledger.approvals import NotApproved
from pipeline.ledger.intents import ApprovalMoved, Approved, Ended, Opened, PolicyMoved
from pipeline.ledger.moving import move_job
from pipeline.ledger.replay import replay
from pipeline.ledger.votes import Counted, NotCounted
from pipeline.policy.change import put_in_force
from pipeline.states import ApprovalState, JobState, Wait
from tests.ledger.acts import until_awaited
from tests.ledger.desk import FOUR_EYES, HOUR, POLICY, Desk
from tests.ledger.house import House, intent_of
from tests.ledger.plans import plans


@pytest.fixture
def desk(house: House) -> Desk:
    return Desk(house)


def confirmed(desk: Desk, **more: Any) -> bool:
    """Whether the approval holds, as an opening asks."""
    intent = desk.intent(**more)
    return desk.house.database.write(lambda c: approvals.confirm(c, intent, now=datetime.now(UTC)))


def test_a_step_parks_until_the_answer_that_decides_and_opens_with_it(desk: Desk) -> None:
    asked = desk.ask()
    assert isinstance(asked, Ended)
    waiting = desk.house.row(desk.job.id)
    assert (waiting.state, waiting.wait, waiting.waits_for) == ("waiting", "approval", f"approval:{desk.row.id}")
    assert desk.say("acme.bob") == Counted(state=ApprovalState.APPROVED)
    assert desk.house.row(desk.job.id).state == JobState.QUEUED
    desk.again()
    given = desk.ask()
    assert given == Approved(id=desk.row.id, by=("acme.bob",))
    assert isinstance(desk.open(approval=given), Opened)
    told = desk.house.database.read(
        lambda c: c.execute(select(audit.c.detail).where(audit.c.kind == "attempt.opened")).scalar_one()
    )
    assert (told["approval"], told["approved_by"]) == (desk.row.id, ["acme.bob"])
    kinds = desk.house.database.read(
        lambda c: c.execute(select(audit.c.kind).where(audit.c.kind.startswith("approval"))).scalars().all()
    )
    assert sorted(kinds) == ["approval.answered", "approval.approved", "approval.asked"]


def test_no_step_opens_without_the_approval_that_its_decision_asks_for(desk: Desk) -> None:
    assert isinstance(desk.open(), ApprovalMoved)
    assert isinstance(desk.open(approval=Approved(id="apr_other", by=())), ApprovalMoved)


@pytest.mark.parametrize("denied", [False, True])
def test_an_approval_holds_only_once_it_was_given(desk: Desk, *, denied: bool) -> None:
    desk.ask()
    if denied:
        desk.say("acme.bob", yes=False)
    assert not confirmed(desk, approval=Approved(id=desk.row.id, by=("acme.bob",)))


def test_an_approval_opens_no_other_step_and_no_other_request(desk: Desk) -> None:
    desk.ask()
    desk.say("acme.bob")
    desk.again()
    given = desk.ask()
    for other in ({"position": 2}, {"request_hash": "another"}, {"principal": "acme.service"}):
        assert isinstance(desk.open(approval=given, **other), ApprovalMoved), other
    strange = desk.house.claim(desk.house.job())
    intent = intent_of(desk.house, strange, decision=desk.decision, approval=given)
    assert isinstance(desk.house.database.write(partial(openings.open_attempt, intent=intent)), ApprovalMoved)
    assert isinstance(desk.open(approval=given), Opened)


def test_a_quorum_of_two_needs_two_people_and_each_rule_its_own(house: House) -> None:
    two = ApprovalNeed(rule="two", quorum=2, approvers=frozenset({"bob", "carol"}), expires_in=HOUR)
    desk = Desk(house, two, replace(FOUR_EYES, approvers=frozenset({"carol"})))
    desk.ask()
    assert desk.say("acme.bob") == Counted(state=ApprovalState.OPEN)
    assert desk.say("acme.bob") == Counted(state=ApprovalState.OPEN)  # the same word again
    assert house.row(desk.job.id).state == JobState.WAITING
    assert isinstance(desk.say("acme.bob", yes=False), NotCounted)
    assert desk.say("acme.carol") == Counted(state=ApprovalState.APPROVED)
    assert desk.row.reason == "by acme.bob, acme.carol"


def test_one_no_is_a_no_and_the_run_is_told(desk: Desk) -> None:
    desk.ask()
    assert desk.say("acme.bob", yes=False) == Counted(state=ApprovalState.DENIED)
    desk.again()
    refused = desk.ask()
    assert isinstance(refused, NotApproved)
    assert "acme.bob said no" in refused.reason
    late = desk.say("acme.carol")
    assert isinstance(late, NotCounted)
    assert "is denied already" in late.reason


def test_an_approval_that_expires_is_a_no_before_it_is_given_and_before_it_is_used(desk: Desk) -> None:
    desk.ask()
    desk.pass_time()
    late = desk.say("acme.bob")
    assert isinstance(late, NotCounted)
    assert "has expired" in late.reason
    desk.again()
    assert isinstance(desk.ask(), NotApproved)
    assert desk.row.state == ApprovalState.EXPIRED


def test_an_approval_that_is_not_used_in_time_expires_and_one_that_was_used_lasts(house: House) -> None:
    unused = Desk(house)
    unused.ask()
    unused.say("acme.bob")
    unused.again()
    given = unused.ask()
    unused.pass_time()
    assert isinstance(unused.open(approval=given), ApprovalMoved)
    assert isinstance(unused.ask(), NotApproved)
    used = Desk(house)
    used.ask()
    used.say("acme.bob")
    used.again()
    given = used.ask()
    assert isinstance(used.open(approval=given), Opened)
    used.pass_time()
    assert used.ask() == given


def test_the_wait_for_an_approval_ends_by_itself_and_the_job_looks_again(desk: Desk) -> None:
    desk.ask()
    end = partial(waits.end_wait, job=desk.job.id, wait=Wait.APPROVAL, expired=True, reason=None)
    assert desk.house.database.write(end) is JobState.QUEUED


def test_what_would_be_done_changed_so_the_approval_is_void_and_asked_for_anew(desk: Desk) -> None:
    desk.ask()
    desk.say("acme.bob")
    first = desk.row.id
    desk.again()
    assert isinstance(desk.ask(request_hash="another", shown={"amount": "5000 EUR"}), Ended)
    assert desk.row.id != first
    rows = desk.house.database.read(lambda c: c.execute(select(table.c.state).order_by(table.c.asked)).scalars().all())
    assert rows == [ApprovalState.VOID, ApprovalState.OPEN]


def test_a_policy_that_comes_into_force_voids_what_was_asked_and_wakes_the_job(desk: Desk) -> None:
    desk.ask()
    apply = partial(put_in_force, over=None, act=Act(audit_id="aud_1", by="cli:test", now=datetime.now(UTC)))
    desk.house.database.write(lambda c: apply(c, "acme", POLICY))
    assert (desk.row.state, desk.house.row(desk.job.id).state) == (ApprovalState.VOID, JobState.QUEUED)
    assert isinstance(desk.say("acme.bob"), NotCounted)
    desk.again()
    assert isinstance(desk.ask(), PolicyMoved)
    desk.decision = replace(desk.decision, policy=1)
    assert isinstance(desk.ask(), Ended)
    assert (desk.row.state, desk.row.policy_version) == (ApprovalState.OPEN, 1)


def test_a_policy_changed_between_approval_and_call_voids_it(desk: Desk) -> None:
    desk.ask()
    desk.say("acme.bob")
    desk.again()
    given = desk.ask()
    apply = partial(put_in_force, over=None, act=Act(audit_id="aud_1", by="cli:test", now=datetime.now(UTC)))
    desk.house.database.write(lambda c: apply(c, "acme", POLICY))
    assert isinstance(desk.open(approval=given), PolicyMoved)
    desk.decision = replace(desk.decision, policy=1)
    assert isinstance(desk.open(approval=given), ApprovalMoved)
    assert isinstance(desk.ask(), Ended)


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_an_opening_beside_the_revocation_of_who_approved_waits_and_reads_what_that_committed(desk: Desk) -> None:
    """SQLite has one writer anyway."""
    desk.ask()
    desk.say("acme.bob")
    desk.again()
    given, outcomes = desk.ask(), list[Any]()
    opening = threading.Thread(target=lambda: outcomes.append(desk.open(approval=given)))
    declare = partial(revocation.declare, source="test", by="test", reason="left", now=datetime.now(UTC))
    bob = Scope(kind=ScopeKind.USER, key="acme.bob")
    until_awaited(desk.house.database, partial(declare, id="rev-slow", scope=bob, tenant="acme"), by=opening)
    assert outcomes == [ApprovalMoved()]


def test_the_approval_of_a_job_that_has_ended_is_void(desk: Desk) -> None:
    desk.ask()
    cancelled = partial(move_job, job=desk.job.id, to=JobState.CANCELLED)
    desk.house.database.write(cancelled)
    ended = desk.say("acme.bob")
    assert isinstance(ended, NotCounted)
    assert "has ended" in ended.reason
    assert desk.row.state == ApprovalState.VOID


def test_the_approval_of_a_job_that_was_replayed_since_opens_nothing(desk: Desk) -> None:
    desk.ask()
    desk.say("acme.bob")
    desk.again()
    given, replayed = desk.ask(), desk.house.database.write(next_number)
    assert not confirmed(desk, approval=given, job=replace(desk.job, accepted=replayed))
    assert confirmed(desk, approval=given, job=desk.job)


def test_many_answers_at_once_decide_once(house: House) -> None:
    two = ApprovalNeed(rule="two", quorum=2, approvers=frozenset({"bob", "carol"}), expires_in=HOUR)
    desk = Desk(house, two)
    desk.ask()
    said: list[Counted | NotCounted] = []
    threads = [
        threading.Thread(target=lambda who=who: said.append(desk.say(who))) for who in ("acme.bob", "acme.carol") * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert desk.row.state == ApprovalState.APPROVED
    assert all(isinstance(one, Counted) for one in said)
    decided = select(audit.c.id).where(audit.c.kind == "approval.approved")
    assert len(house.database.read(lambda c: c.execute(decided).all())) == 1


def test_what_is_open_ends_with_its_time_or_its_job_and_nothing_else_does(house: House) -> None:
    ended, late, replayed, wanted = (Desk(house) for _ in range(4))
    for one in (ended, late, replayed, wanted):
        one.ask()
    expired = update(table).where(table.c.job_id == late.job.id).values(expires_at=datetime.now(UTC) - HOUR)
    house.database.write(lambda c: c.execute(expired).rowcount)
    for one in (ended, replayed):
        house.database.write(partial(move_job, job=one.job.id, to=JobState.CANCELLED))
    house.database.write(partial(replay, job=replayed.job.id, by="cli:test", at=datetime.now(UTC)))
    assert house.database.read(some_are_over)
    while house.database.write(partial(end_some, at_most=1)):  # chunk by chunk
        pass
    assert not house.database.read(some_are_over), "one that is wanted is not looked at again and again"
    rows = house.database.read(lambda c: c.execute(select(table.c.job_id, table.c.state, table.c.reason)).all())
    assert {row.job_id: (row.state, row.reason) for row in rows} == {
        ended.job.id: (ApprovalState.VOID, "its job has ended"),
        late.job.id: (ApprovalState.EXPIRED, "nobody answered in time"),
        replayed.job.id: (ApprovalState.VOID, "its job was replayed and will ask again"),
        wanted.job.id: (ApprovalState.OPEN, None),
    }
    states = [house.row(one.job.id).state for one in (ended, late, replayed, wanted)]
    assert states == [JobState.CANCELLED, JobState.QUEUED, JobState.QUEUED, JobState.WAITING]
    if house.database.engine.dialect.name == "sqlite":  # PostgreSQL reads so few rows whole
        by_time, _ = plans(house.database, some_are_over)
        assert "ix_approvals_expiring" in by_time
