"""An approval is for exactly what was shown, by others than who asked, in time; and it holds until the step opens."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select, update

from identity.audit_tables import audit
from identity.model import PrincipalKind, Scope, ScopeKind
from identity.policy_rules import ApprovalNeed
from identity.principals import ensure_principal, link_alias
from identity.scopes import revoke_scope, stop_scope
from identity.sequence import lock_exclusive, next_number
from pipeline.approval_tables import approvals as table
from pipeline.ledger import approvals, jobs, openings, waits
from pipeline.ledger.approvals import NotApproved
from pipeline.ledger.intents import ApprovalMoved, Approved, Ended, Opened, PolicyMoved
from pipeline.ledger.replay import replay
from pipeline.ledger.votes import Counted, NotCounted
from pipeline.policy_change import put_in_force
from pipeline.shown import digest_of
from pipeline.states import ApprovalState, JobState, Wait
from pipeline.tables import jobs as jobs_table
from tests.ledger.desk import FOUR_EYES, HOUR, POLICY, Desk
from tests.ledger.house import House, intent_of


@pytest.fixture
def desk(house: House) -> Desk:
    return Desk(house)


def triggered(house: House, desk: Desk, by: str) -> None:
    """The sender of the event names whoever did it so."""
    sent = update(jobs_table).values(triggered_by=by)
    house.database.write(lambda c: c.execute(sent.where(jobs_table.c.id == desk.job.id)).rowcount)


def link_carol(house: House, *, provider: str = "slack", external_id: str = "U9") -> None:
    """An admin finds out who that is there."""
    link = partial(
        link_alias,
        tenant="acme",
        provider=provider,
        external_id=external_id,
        principal="acme.carol",
        login="carol-at-work",
        made_by="admin:test",
        now=datetime.now(UTC),
    )
    house.database.write(link)


def withdraw(desk: Desk, who: str, *, stop: bool) -> None:
    """*who* is stopped, or else revoked."""
    scope = Scope(kind=ScopeKind.USER, key=who)

    def end(c: Any) -> None:
        lock_exclusive(c, scope)
        if stop:
            stop_scope(c, scope)
        else:
            revoke_scope(c, scope, next_number(c), reason="left", now=datetime.now(UTC))

    desk.house.database.write(end)


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
    desk.ask()
    row, never = desk.row, Approved(id="apr_other", by=())
    for claimed in (never, Approved(id=row.id, by=("acme.bob",))):  # not there; not decided
        job = desk.house.claim(desk.house.job())
        intent = intent_of(desk.house, job, decision=desk.decision, approval=claimed)
        assert isinstance(desk.house.database.write(partial(openings.open_attempt, intent=intent)), ApprovalMoved)


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


def test_whose_answer_does_not_count(desk: Desk) -> None:
    desk.ask()
    before: dict[str, Any] = {"digest": digest_of({"amount": "4 EUR"})}
    for who, more, why in (
        ("acme.ada", {}, "asked for it, and whoever asks does not approve"),
        ("acme.service", {}, "is no user of tenant acme"),
        ("globex.bob", {}, "is no user of tenant acme"),
        ("nobody", {}, "is no user of tenant acme"),
        ("acme.bob", before, "what was shown is not what"),
        ("globex.bob", {"tenant": "globex"}, "tenant globex has no approval"),
    ):
        refused = desk.say(who, **more)
        assert isinstance(refused, NotCounted), who
        assert why in refused.reason
    assert desk.row.state == ApprovalState.OPEN


def test_an_alias_of_the_requester_does_not_approve(house: House) -> None:
    """The sender of the event is known by its name there; carol turns out to have that name, linked only since."""
    desk = Desk(house)
    triggered(house, desk, "slack:CAROL-at-work")
    desk.ask()
    link_carol(house)
    refused = desk.say("acme.carol")
    assert isinstance(refused, NotCounted)
    assert "whoever asks does not approve" in refused.reason
    assert desk.say("acme.bob") == Counted(state=ApprovalState.APPROVED)


@pytest.mark.parametrize("decided", [False, True], ids=["before it is decided", "before it opens"])
def test_a_yes_of_whoever_turns_out_to_have_asked_counts_no_more(house: House, *, decided: bool) -> None:
    two = ApprovalNeed(rule="two", quorum=2, approvers=frozenset({"bob", "carol"}), expires_in=HOUR)
    desk = Desk(house, two)
    triggered(house, desk, "slack:U9")
    desk.ask()
    assert desk.say("acme.carol") == Counted(state=ApprovalState.OPEN)
    if not decided:
        link_carol(house)
        assert desk.say("acme.bob") == Counted(state=ApprovalState.OPEN), "carol asked: hers is no yes"
        return
    assert desk.say("acme.bob") == Counted(state=ApprovalState.APPROVED)
    desk.again()
    given = desk.ask()
    link_carol(house)
    assert isinstance(desk.open(approval=given), ApprovalMoved)
    assert (desk.row.state, "acme.carol, who said yes, asked for it" in desk.row.reason) == (ApprovalState.VOID, True)
    assert isinstance(desk.ask(), NotApproved), "there is nobody to ask but bob"


def test_whoever_has_a_job_accepted_anew_does_not_approve_it(house: House) -> None:
    """Carol presses Replay at the console, and bob types it: neither has seen their own work since."""
    desk = Desk(house, replace(FOUR_EYES, approvers=frozenset({"bob", "carol", "dave"})))
    make = partial(ensure_principal, kind=PrincipalKind.USER, tenant="acme", now=datetime.now(UTC))
    house.database.write(partial(make, id="acme.dave", name="dave"))
    link_carol(house, provider="console", external_id="sub-7")
    for by, subject in (("console:Carol C.", "sub-7"), ("cli:bob", None)):
        house.database.write(partial(jobs.move_job, job=desk.job.id, to=JobState.CANCELLED))
        house.database.write(partial(replay, job=desk.job.id, by=by, at=datetime.now(UTC), subject=subject))
    desk.again()
    desk.ask()
    for who in ("acme.bob", "acme.carol"):
        refused = desk.say(who)
        assert isinstance(refused, NotCounted)
        assert "asked for it" in refused.reason
    assert desk.say("acme.dave") == Counted(state=ApprovalState.APPROVED)


def test_where_none_but_the_requester_could_approve_the_step_is_refused_at_once(house: House) -> None:
    for approvers, quorum in (({"ada"}, 1), ({"ada", "bob"}, 2), ({"gone"}, 1)):
        need = ApprovalNeed(rule="r", quorum=quorum, approvers=frozenset(approvers), expires_in=HOUR)
        refused = Desk(house, need).ask()
        assert isinstance(refused, NotApproved)
        assert "whoever asked may not" in refused.reason


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
    apply = partial(put_in_force, over=None, by="cli:test", audit_id="aud_1", now=datetime.now(UTC))
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
    apply = partial(put_in_force, over=None, by="cli:test", audit_id="aud_1", now=datetime.now(UTC))
    desk.house.database.write(lambda c: apply(c, "acme", POLICY))
    assert isinstance(desk.open(approval=given), PolicyMoved)
    desk.decision = replace(desk.decision, policy=1)
    assert isinstance(desk.open(approval=given), ApprovalMoved)
    assert isinstance(desk.ask(), Ended)


@pytest.mark.parametrize("stop", [False, True], ids=["revoked", "stopped"])
def test_a_yes_of_somebody_who_lost_their_authority_since_counts_no_more(desk: Desk, *, stop: bool) -> None:
    desk.ask()
    desk.say("acme.bob")
    desk.again()
    given = desk.ask()
    withdraw(desk, "acme.bob", stop=stop)
    assert isinstance(desk.open(approval=given), ApprovalMoved)
    assert desk.row.state == ApprovalState.VOID
    assert isinstance(desk.ask(), Ended)
    assert isinstance(desk.say("acme.bob"), NotCounted), "nor does it when the job asks anew"
    assert desk.say("acme.carol") == Counted(state=ApprovalState.APPROVED)


@pytest.mark.parametrize("stop", [False, True], ids=["revoked", "stopped"])
def test_whoever_lost_their_authority_since_it_was_asked_has_no_answer(desk: Desk, *, stop: bool) -> None:
    desk.ask()
    withdraw(desk, "acme.bob", stop=stop)
    refused = desk.say("acme.bob")
    assert isinstance(refused, NotCounted)
    assert ("is stopped" if stop else "was revoked since") in refused.reason
    later = Desk(desk.house)  # a job of after it: a stop holds until an admin ends it, a revocation is over
    later.ask()
    assert isinstance(later.say("acme.bob"), NotCounted if stop else Counted)


def test_the_approval_of_a_job_that_was_replayed_or_has_ended_opens_nothing(desk: Desk) -> None:
    desk.ask()
    cancelled = partial(jobs.move_job, job=desk.job.id, to=JobState.CANCELLED)
    desk.house.database.write(cancelled)
    ended = desk.say("acme.bob")
    assert isinstance(ended, NotCounted)
    assert "has ended" in ended.reason
    assert desk.row.state == ApprovalState.VOID
    number = desk.house.database.write(next_number)
    replayed = replace(desk.job, accepted=number)
    intent = intent_of(desk.house, replayed, decision=desk.decision, approval=Approved(id=desk.row.id, by=()))
    assert desk.house.database.write(lambda c: approvals.confirm(c, intent, now=datetime.now(UTC))) is False


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
