"""Whose answers count: never those of whoever asked, under whatever name, nor of who lost their authority since."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import product
from typing import Any

import pytest
from sqlalchemy import select, update

from identity.accounts.scopes import remember_stop, revoke_scope
from identity.audit.tables import audit
from identity.digests import json_digest
from identity.model import PrincipalKind, Scope, ScopeKind
from identity.policy.rules import ApprovalNeed
from identity.principals import ensure_principal, link_alias
from identity.sql.sequence import lock_exclusive, next_number
from identity.tables import principals
from pipeline.approvals import signed_answers
from pipeline.approvals.requested import NotApproved
from pipeline.approvals.votes import Counted, NotCounted
from pipeline.jobs.intents import ApprovalMoved, Ended
from pipeline.jobs.moves import move_job
from pipeline.signed_answer import SignedAnswer
from pipeline.states import ApprovalState, JobState
from pipeline.steps.replay import replay_job
from pipeline.tables import jobs as jobs_table
from tests.ledger.approval_case import FOUR_EYES, HOUR, ApprovalCase
from tests.ledger.house import House


@pytest.fixture
def case(house: House) -> ApprovalCase:
    return ApprovalCase(house)


def triggered(house: House, case: ApprovalCase, by: str) -> None:
    """The sender of the event names whoever did it so."""
    sent = update(jobs_table).values(triggered_by=by)
    house.database.write(lambda c: c.execute(sent.where(jobs_table.c.id == case.job.id)).rowcount)


def add_dave(house: House) -> None:
    """Another user of the tenant, whom the case's policy does not name."""
    make = partial(ensure_principal, kind=PrincipalKind.USER, tenant="acme", now=datetime.now(UTC))
    house.database.write(partial(make, id="acme.dave", name="dave"))


def link_carol(
    house: House, *, provider: str = "slack", external_id: str = "U9", login: str | None = "carol-at-work"
) -> None:
    """An admin finds out who that is there."""
    link = partial(
        link_alias,
        tenant="acme",
        provider=provider,
        external_id=external_id,
        principal="acme.carol",
        login=login,
        made_by="admin:test",
        now=datetime.now(UTC),
    )
    house.database.write(link)


def withdraw(case: ApprovalCase, who: str, *, stop: bool) -> None:
    """*who* is stopped, or else revoked."""
    scope = Scope(kind=ScopeKind.USER, key=who)

    def end(c: Any) -> None:
        lock_exclusive(c, scope)
        if stop:
            remember_stop(c, scope, stopped=True)
        else:
            revoke_scope(c, scope, next_number(c), reason="left", now=datetime.now(UTC))

    case.house.database.write(end)


def test_whose_answer_does_not_count(case: ApprovalCase) -> None:
    case.ask()
    before: dict[str, Any] = {"digest": json_digest({"amount": "4 EUR"})}
    for who, more, why in (
        ("acme.ada", {}, "asked for it, and whoever asks does not approve"),
        ("acme.service", {}, "is no user of tenant acme"),
        ("globex.bob", {}, "is no user of tenant acme"),
        ("nobody", {}, "is no user of tenant acme"),
        ("acme.bob", before, "what was shown is not what"),
        ("globex.bob", {"tenant": "globex"}, "tenant globex has no approval"),
    ):
        refused = case.say(who, **more)
        assert isinstance(refused, NotCounted), who
        assert why in refused.reason
    assert case.row.state == ApprovalState.OPEN


@pytest.mark.parametrize("yes", [True, False], ids=["yes", "no"])
def test_whom_the_policy_does_not_ask_neither_approves_nor_denies(case: ApprovalCase, *, yes: bool) -> None:
    add_dave(case.house)
    case.ask()
    refused = case.say("acme.dave", yes=yes)
    assert isinstance(refused, NotCounted)
    assert "is not among those whom the policy asks" in refused.reason
    assert case.row.state == ApprovalState.OPEN
    answered = select(audit.c.id).where(audit.c.kind == "approval.answered")
    assert case.house.database.read(lambda c: c.execute(answered).all()) == []


def test_an_alias_of_the_requester_does_not_approve(house: House) -> None:
    """The sender of the event is known by its name there; carol turns out to have that name, linked only since."""
    case = ApprovalCase(house)
    triggered(house, case, "slack:CAROL-at-work")
    case.ask()
    link_carol(house)
    refused = case.say("acme.carol")
    assert isinstance(refused, NotCounted)
    assert "whoever asks does not approve" in refused.reason
    assert case.say("acme.bob") == Counted(state=ApprovalState.APPROVED)


SPELLINGS = [
    ("Élodie", "ÉLODIE"),
    ("Élodie", "Élodie"),
    ("Élodie", "élodie"),
    ("Élodie", "E\u0301lodie"),
    *product(["élodie"], ["Élodie", "ÉLODIE", "élodie", "E\u0301lodie"]),
    *product(["Işıl", "IŞIL"], ["ışıl", "IŞIL"]),  # in Turkish the capital of ı is I, and that of i is İ
    ("İpek", "ipek"),
]


@pytest.mark.parametrize(
    ("ledger_url", "known", "sent"),
    [
        *(("sqlite", *each) for each in SPELLINGS),
        ("postgresql", *SPELLINGS[0]),
        *(pytest.param("postgresql", *each, marks=pytest.mark.slow) for each in SPELLINGS[1:]),
    ],
    indirect=["ledger_url"],
)
@pytest.mark.parametrize("by", ["a name", "an alias's login", "an alias's id"])
def test_a_requester_is_known_whatever_the_capitals_of_their_language(
    house: House, by: str, known: str, sent: str
) -> None:
    """SQL's lower() knows those of ASCII alone, on SQLite and in PostgreSQL's locale C."""
    case = ApprovalCase(house, replace(FOUR_EYES, approvers=frozenset({"acme.carol", "acme.bob"})))
    if by == "a name":
        rename = update(principals).where(principals.c.id == "acme.carol").values(name=known)
        house.database.write(lambda c: c.execute(rename).rowcount)
        triggered(house, case, f"console:{sent}")
    else:
        of_id = by == "an alias's id"
        link_carol(house, external_id=known if of_id else "U9", login=None if of_id else known)
        triggered(house, case, f"slack:{sent}")
    case.ask()
    refused = case.say("acme.carol")
    assert isinstance(refused, NotCounted)
    assert "whoever asks does not approve" in refused.reason
    assert case.say("acme.bob") == Counted(state=ApprovalState.APPROVED)


@pytest.mark.parametrize("decided", [False, True], ids=["before it is decided", "before it opens"])
def test_a_yes_of_whoever_turns_out_to_have_asked_counts_no_more(house: House, *, decided: bool) -> None:
    two = ApprovalNeed(rule="two", quorum=2, approvers=frozenset({"bob", "carol"}), expires_in=HOUR)
    case = ApprovalCase(house, two)
    triggered(house, case, "slack:U9")
    case.ask()
    assert case.say("acme.carol") == Counted(state=ApprovalState.OPEN)
    if not decided:
        link_carol(house)
        assert case.say("acme.bob") == Counted(state=ApprovalState.OPEN), "carol asked: hers is no yes"
        return
    assert case.say("acme.bob") == Counted(state=ApprovalState.APPROVED)
    case.again()
    given = case.ask()
    link_carol(house)
    assert isinstance(case.open(approval=given), ApprovalMoved)
    assert (case.row.state, "acme.carol, who said yes, asked for it" in case.row.reason) == (ApprovalState.VOID, True)
    assert isinstance(case.ask(), NotApproved), "there is nobody to ask but bob"


def test_whoever_has_a_job_accepted_anew_does_not_approve_it(house: House) -> None:
    """Carol presses Replay at the console, and bob types it: neither has seen their own work since."""
    case = ApprovalCase(house, replace(FOUR_EYES, approvers=frozenset({"bob", "carol", "dave"})))
    add_dave(house)
    link_carol(house, provider="console", external_id="sub-7")
    for by, subject in (("console:Carol C.", "sub-7"), ("cli:bob", None)):
        house.database.write(partial(move_job, job=case.job.id, to=JobState.CANCELLED))
        house.database.write(partial(replay_job, job=case.job.id, by=by, at=datetime.now(UTC), subject=subject))
    case.again()
    case.ask()
    for who in ("acme.bob", "acme.carol"):
        refused = case.say(who)
        assert isinstance(refused, NotCounted)
        assert "asked for it" in refused.reason
    assert case.say("acme.dave") == Counted(state=ApprovalState.APPROVED)


def test_a_name_that_people_give_themselves_keeps_them_from_approving_too(case: ApprovalCase) -> None:
    """Rather one person too many than the requester."""
    house = case.house
    house.database.write(partial(move_job, job=case.job.id, to=JobState.CANCELLED))
    anew = partial(replay_job, job=case.job.id, by="console:00u-9 (Bob)", subject="00u-9", at=datetime.now(UTC))
    house.database.write(anew)
    case.again()
    case.ask()
    refused = case.say("acme.bob")
    assert isinstance(refused, NotCounted)
    assert "asked for it" in refused.reason
    assert case.say("acme.carol") == Counted(state=ApprovalState.APPROVED)


def test_an_answer_is_of_whom_an_admin_has_introduced_not_of_whoever_connected(case: ApprovalCase) -> None:
    """An agent may send for a link that connects bob's account, and whoever opens it signs in as they like."""
    case.ask()
    pressed = SignedAnswer(provider="slack", user="U6", approval=case.row.id, digest=case.row.digest, yes=True)
    is_bob = partial(link_alias, tenant="acme", provider="slack", external_id="U6", principal="acme.bob", login="x")

    def answered() -> signed_answers.Answered:
        return case.house.database.write(
            lambda c: signed_answers.count(c, "acme", pressed, through="gh", now=datetime.now(UTC))
        )

    def link(made_by: str) -> None:
        assert case.house.database.write(partial(is_bob, made_by=made_by, now=datetime.now(UTC)))

    link("connect:acc-acme.bob")
    stranger = answered()
    assert (stranger.outcome, "nobody's alias by an admin's word" in stranger.reason) == ("refused", True)
    assert "U6" not in stranger.told, "who may be a stranger, and could have somebody add it"
    assert "aswhom" not in stranger.told
    assert case.row.state == ApprovalState.OPEN
    link("admin:test")
    link("connect:acc-acme.bob")
    assert answered().outcome == "accepted"
    assert case.row.state == ApprovalState.APPROVED


def test_where_none_but_the_requester_could_approve_the_step_is_refused_at_once(house: House) -> None:
    for approvers, quorum in (({"ada"}, 1), ({"ada", "bob"}, 2), ({"gone"}, 1)):
        need = ApprovalNeed(rule="r", quorum=quorum, approvers=frozenset(approvers), expires_in=HOUR)
        refused = ApprovalCase(house, need).ask()
        assert isinstance(refused, NotApproved)
        assert "whoever asked may not" in refused.reason


def test_of_a_compensation_it_is_told_that_whoever_revoked_does_not_approve(house: House) -> None:
    alone = replace(FOUR_EYES, approvers=frozenset({"acme.carol"}))
    cases = [ApprovalCase(house), ApprovalCase(house, alone)]
    values = {"workflow": "say_it.compensation", "replayed_by": ["acme.carol"]}
    house.database.write(lambda c: c.execute(update(jobs_table).values(**values)).rowcount)
    for case in cases:
        case.job = replace(case.job, workflow="say_it.compensation")
    asked, alone_asked = (case.ask() for case in cases)
    assert isinstance(asked, Ended)
    refused = cases[0].say("acme.carol")
    assert isinstance(refused, NotCounted)
    assert "asked for the job that it compensates, or revoked" in refused.reason
    assert isinstance(alone_asked, NotApproved)
    assert "nor whoever revoked" in alone_asked.reason


@pytest.mark.parametrize("stop", [False, True], ids=["revoked", "stopped"])
def test_a_yes_of_somebody_who_lost_their_authority_since_counts_no_more(case: ApprovalCase, *, stop: bool) -> None:
    case.ask()
    case.say("acme.bob")
    case.again()
    given = case.ask()
    withdraw(case, "acme.bob", stop=stop)
    assert isinstance(case.open(approval=given), ApprovalMoved)
    assert case.row.state == ApprovalState.VOID
    assert isinstance(case.ask(), Ended)
    assert isinstance(case.say("acme.bob"), NotCounted), "nor does it when the job asks anew"
    assert case.say("acme.carol") == Counted(state=ApprovalState.APPROVED)


@pytest.mark.parametrize("stop", [False, True], ids=["revoked", "stopped"])
def test_whoever_lost_their_authority_since_it_was_asked_has_no_answer(case: ApprovalCase, *, stop: bool) -> None:
    case.ask()
    withdraw(case, "acme.bob", stop=stop)
    refused = case.say("acme.bob")
    assert isinstance(refused, NotCounted)
    assert ("is stopped" if stop else "was revoked since") in refused.reason
    later = ApprovalCase(case.house)  # a job of after it: a stop holds until an admin ends it, a revocation is over
    later.ask()
    assert isinstance(later.say("acme.bob"), NotCounted if stop else Counted)
