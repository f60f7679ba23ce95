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
from identity.digests import json_digest
from identity.model import Scope, ScopeKind
from identity.policy.rules import ApprovalNeed
from identity.sql.sequence import next_number
from pipeline.approvals import requested
from pipeline.approvals.ends import end_some, some_are_over
from pipeline.approvals.requested import NotApproved
from pipeline.approvals.tables import approvals as table
from pipeline.approvals.votes import Counted, NotCounted
from pipeline.jobs import waits
from pipeline.jobs.intents import ApprovalMoved, Approved, Ended, Opened, PolicyMoved
from pipeline.jobs.moves import move_job
from pipeline.policy.change import put_in_force
from pipeline.revocation import declaration
from pipeline.states import ApprovalState, JobState, Purpose, Wait
from pipeline.steps import openings
from pipeline.steps.replay import replay_job
from tests.ledger.acts import until_awaited
from tests.ledger.approval_case import FOUR_EYES, HOUR, POLICY, ApprovalCase
from tests.ledger.house import House, intent_of
from tests.ledger.plans import plans


@pytest.fixture
def case(house: House) -> ApprovalCase:
    return ApprovalCase(house)


def confirmed(case: ApprovalCase, **more: Any) -> bool:
    """Whether the approval holds, as an opening asks."""
    intent = case.intent(**more)
    return case.house.database.write(lambda c: requested.confirm(c, intent, now=datetime.now(UTC)))


def test_a_step_parks_until_the_answer_that_decides_and_opens_with_it(case: ApprovalCase) -> None:
    asked = case.ask()
    assert isinstance(asked, Ended)
    waiting = case.house.row(case.job.id)
    assert (waiting.state, waiting.wait, waiting.waits_for) == ("waiting", "approval", f"approval:{case.row.id}")
    assert waiting.waiting_step == case.intent().unopened
    assert case.say("acme.bob") == Counted(state=ApprovalState.APPROVED)
    queued = case.house.row(case.job.id)
    assert (queued.state, queued.waiting_step) == (JobState.QUEUED, None)
    case.again()
    given = case.ask()
    assert given == Approved(id=case.row.id, by=("acme.bob",))
    assert isinstance(case.open(approval=given), Opened)
    told = case.house.database.read(
        lambda c: c.execute(select(audit.c.detail).where(audit.c.kind == "attempt.opened")).scalar_one()
    )
    assert (told["approval"], told["approved_by"]) == (case.row.id, ["acme.bob"])
    kinds = case.house.database.read(
        lambda c: c.execute(select(audit.c.kind).where(audit.c.kind.startswith("approval"))).scalars().all()
    )
    assert sorted(kinds) == ["approval.answered", "approval.approved", "approval.asked"]


def test_the_audit_alone_says_what_was_asked_of_whom_and_of_what(case: ApprovalCase) -> None:
    """Of an approval that nobody answers, an export of the audit has nothing but this."""
    case.ask(shown={"amount": "5 EUR", "request_sha256": "as it is sent"})
    row, intent = case.row, case.intent()
    (told,) = case.house.database.read(lambda c: c.execute(select(audit).where(audit.c.kind == "approval.asked")).all())
    assert (told.agent_id, told.principal_id, told.on_behalf_of) == (case.job.agent, intent.principal, "acme.ada")
    assert told.detail == {
        "approval": row.id,
        "position": row.position,
        "request_hash": row.request_hash,
        "request_sha256": "as it is sent",
        "digest": row.digest,
        "policy": row.policy_version,
        "needs": row.needs,
    }


def test_no_step_opens_without_the_approval_that_its_decision_asks_for(case: ApprovalCase) -> None:
    assert isinstance(case.open(), ApprovalMoved)
    assert isinstance(case.open(approval=Approved(id="apr_other", by=())), ApprovalMoved)


@pytest.mark.parametrize("denied", [False, True])
def test_an_approval_holds_only_once_it_was_given(case: ApprovalCase, *, denied: bool) -> None:
    case.ask()
    if denied:
        case.say("acme.bob", yes=False)
    assert not confirmed(case, approval=Approved(id=case.row.id, by=("acme.bob",)))


def test_an_approval_opens_no_other_step_and_no_other_request(case: ApprovalCase) -> None:
    case.ask()
    case.say("acme.bob")
    case.again()
    given = case.ask()
    for other in ({"position": 2}, {"request_hash": "another"}, {"principal": "acme.service"}):
        assert isinstance(case.open(approval=given, **other), ApprovalMoved), other
    strange = case.house.claim(case.house.job())
    intent = intent_of(case.house, strange, decision=case.decision, approval=given)
    assert isinstance(case.house.database.write(partial(openings.open_attempt, intent=intent)), ApprovalMoved)
    assert isinstance(case.open(approval=given), Opened)


def test_an_approval_opens_no_call_that_is_written_otherwise_than_it_was_when_asked(case: ApprovalCase) -> None:
    shown = {"amount": "5 EUR", "request_sha256": "as asked"}
    case.ask(shown=shown)
    case.say("acme.bob")
    case.again()
    given = case.ask(shown=shown)
    assert isinstance(given, Approved)
    assert isinstance(case.open(approval=given, request_sha256="another"), ApprovalMoved)
    assert isinstance(case.open(approval=given), ApprovalMoved)
    assert confirmed(case, approval=given, request_sha256="a search's own", purpose=Purpose.PROBE)
    assert isinstance(case.open(approval=given, request_sha256="as asked"), Opened)


def test_what_is_sent_changed_so_the_approval_is_void_and_asked_for_anew(case: ApprovalCase) -> None:
    case.ask(shown={"amount": "5 EUR", "request_sha256": "as asked"})
    first = case.row.id
    case.say("acme.bob")
    case.again()
    assert isinstance(case.ask(shown={"amount": "5 EUR", "request_sha256": "another"}), Ended)
    assert case.row.id != first


def test_an_approver_is_shown_who_else_has_to_say_yes_and_their_digest_covers_it(case: ApprovalCase) -> None:
    case.ask()
    named = [{"rule": "four eyes", "quorum": 1, "approvers": ["ada", "bob", "carol"]}]
    assert case.row.shown["needs"] == named
    assert case.row.digest == json_digest(case.row.shown)


def test_a_quorum_of_two_needs_two_people_and_each_rule_its_own(house: House) -> None:
    two = ApprovalNeed(rule="two", quorum=2, approvers=frozenset({"bob", "carol"}), expires_in=HOUR)
    case = ApprovalCase(house, two, replace(FOUR_EYES, approvers=frozenset({"carol"})))
    case.ask()
    assert case.say("acme.bob") == Counted(state=ApprovalState.OPEN)
    assert case.say("acme.bob") == Counted(state=ApprovalState.OPEN)  # the same word again
    assert house.row(case.job.id).state == JobState.WAITING
    assert isinstance(case.say("acme.bob", yes=False), NotCounted)
    assert case.say("acme.carol") == Counted(state=ApprovalState.APPROVED)
    assert case.row.reason == "by acme.bob, acme.carol"


def test_one_no_is_a_no_and_the_run_is_told(case: ApprovalCase) -> None:
    case.ask()
    assert case.say("acme.bob", yes=False) == Counted(state=ApprovalState.DENIED)
    case.again()
    refused = case.ask()
    assert isinstance(refused, NotApproved)
    assert "acme.bob said no" in refused.reason
    late = case.say("acme.carol")
    assert isinstance(late, NotCounted)
    assert "is denied already" in late.reason


def test_an_approval_that_expires_is_a_no_before_it_is_given_and_before_it_is_used(case: ApprovalCase) -> None:
    case.ask()
    case.pass_time()
    late = case.say("acme.bob")
    assert isinstance(late, NotCounted)
    assert "has expired" in late.reason
    case.again()
    assert isinstance(case.ask(), NotApproved)
    assert case.row.state == ApprovalState.EXPIRED


def test_an_approval_that_is_not_used_in_time_expires_and_one_that_was_used_lasts(house: House) -> None:
    unused = ApprovalCase(house)
    unused.ask()
    unused.say("acme.bob")
    unused.again()
    given = unused.ask()
    unused.pass_time()
    assert isinstance(unused.open(approval=given), ApprovalMoved)
    assert isinstance(unused.ask(), NotApproved)
    used = ApprovalCase(house)
    used.ask()
    used.say("acme.bob")
    used.again()
    given = used.ask()
    assert isinstance(used.open(approval=given), Opened)
    used.pass_time()
    assert used.ask() == given


def test_the_wait_for_an_approval_ends_by_itself_and_the_job_looks_again(case: ApprovalCase) -> None:
    case.ask()
    end = partial(waits.end_wait, job=case.job.id, fence=case.job.fence, wait=Wait.APPROVAL, expired=True, reason=None)
    assert case.house.database.write(end) is JobState.QUEUED


def test_what_would_be_done_changed_so_the_approval_is_void_and_asked_for_anew(case: ApprovalCase) -> None:
    case.ask()
    case.say("acme.bob")
    first = case.row.id
    case.again()
    assert isinstance(case.ask(request_hash="another", shown={"amount": "5000 EUR"}), Ended)
    assert case.row.id != first
    rows = case.house.database.read(lambda c: c.execute(select(table.c.state).order_by(table.c.asked)).scalars().all())
    assert rows == [ApprovalState.VOID, ApprovalState.OPEN]


def test_an_approval_outlasts_other_words_for_who_started_the_job(case: ApprovalCase) -> None:
    case.ask(shown={"amount": "5 EUR", "started_by": "a delivery; accepted anew by cli:eve"})
    case.say("acme.bob")
    first = case.row
    case.again()
    for said in ({"started_by": "a delivery; replayed by cli:eve"}, {}):
        assert isinstance(case.ask(shown={"amount": "5 EUR", **said}), Approved)
    assert case.row.id == first.id
    assert case.row.shown["started_by"] == "a delivery; accepted anew by cli:eve"


def test_a_policy_that_comes_into_force_voids_what_was_asked_and_wakes_the_job(case: ApprovalCase) -> None:
    case.ask()
    apply = partial(put_in_force, over=None, act=Act(audit_id="aud_1", by="cli:test", now=datetime.now(UTC)))
    case.house.database.write(lambda c: apply(c, "acme", POLICY))
    assert (case.row.state, case.house.row(case.job.id).state) == (ApprovalState.VOID, JobState.QUEUED)
    assert isinstance(case.say("acme.bob"), NotCounted)
    case.again()
    assert isinstance(case.ask(), PolicyMoved)
    case.decision = replace(case.decision, policy=1)
    assert isinstance(case.ask(), Ended)
    assert (case.row.state, case.row.policy_version) == (ApprovalState.OPEN, 1)


def test_a_policy_changed_between_approval_and_call_voids_it(case: ApprovalCase) -> None:
    case.ask()
    case.say("acme.bob")
    case.again()
    given = case.ask()
    apply = partial(put_in_force, over=None, act=Act(audit_id="aud_1", by="cli:test", now=datetime.now(UTC)))
    case.house.database.write(lambda c: apply(c, "acme", POLICY))
    assert isinstance(case.open(approval=given), PolicyMoved)
    case.decision = replace(case.decision, policy=1)
    assert isinstance(case.open(approval=given), ApprovalMoved)
    assert isinstance(case.ask(), Ended)


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_an_opening_beside_the_revocation_of_who_approved_waits_and_reads_what_that_committed(
    case: ApprovalCase,
) -> None:
    """SQLite has one writer anyway."""
    case.ask()
    case.say("acme.bob")
    case.again()
    given, outcomes = case.ask(), list[Any]()
    opening = threading.Thread(target=lambda: outcomes.append(case.open(approval=given)))
    bob, cause = Scope(kind=ScopeKind.USER, key="acme.bob"), declaration.Cause(source="test", by="test", reason="left")
    declare = partial(declaration.declare, scope=bob, cause=cause, id="rev-slow", tenant="acme", now=datetime.now(UTC))
    until_awaited(case.house.database, declare, by=opening)
    assert outcomes == [ApprovalMoved()]


def test_the_approval_of_a_job_that_has_ended_is_void(case: ApprovalCase) -> None:
    case.ask()
    cancelled = partial(move_job, job=case.job.id, to=JobState.CANCELLED)
    case.house.database.write(cancelled)
    ended = case.say("acme.bob")
    assert isinstance(ended, NotCounted)
    assert "has ended" in ended.reason
    assert case.row.state == ApprovalState.VOID


def test_the_approval_of_a_job_that_was_replayed_since_opens_nothing(case: ApprovalCase) -> None:
    case.ask()
    case.say("acme.bob")
    case.again()
    given, replayed = case.ask(), case.house.database.write(next_number)
    assert not confirmed(case, approval=given, job=replace(case.job, accepted=replayed))
    assert confirmed(case, approval=given, job=case.job)


def test_many_answers_at_once_decide_once(house: House) -> None:
    two = ApprovalNeed(rule="two", quorum=2, approvers=frozenset({"bob", "carol"}), expires_in=HOUR)
    case = ApprovalCase(house, two)
    case.ask()
    said: list[Counted | NotCounted] = []
    threads = [
        threading.Thread(target=lambda who=who: said.append(case.say(who))) for who in ("acme.bob", "acme.carol") * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert case.row.state == ApprovalState.APPROVED
    assert all(isinstance(one, Counted) for one in said)
    decided = select(audit.c.id).where(audit.c.kind == "approval.approved")
    assert len(house.database.read(lambda c: c.execute(decided).all())) == 1


def test_what_is_open_ends_with_its_time_or_its_job_and_nothing_else_does(house: House) -> None:
    ended, late, replayed, wanted = (ApprovalCase(house) for _ in range(4))
    for one in (ended, late, replayed, wanted):
        one.ask()
    expired = update(table).where(table.c.job_id == late.job.id).values(expires_at=datetime.now(UTC) - HOUR)
    house.database.write(lambda c: c.execute(expired).rowcount)
    for one in (ended, replayed):
        house.database.write(partial(move_job, job=one.job.id, to=JobState.CANCELLED))
    house.database.write(partial(replay_job, job=replayed.job.id, by="cli:test", at=datetime.now(UTC)))
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
