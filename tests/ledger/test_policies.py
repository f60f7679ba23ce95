"""A tenant's policy holds from its commit on: no step opens under another version than the one it was decided by."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from identity.audit import Act
from identity.audit.tables import audit
from identity.errors import BadInput, Misconfigured
from identity.money import Money
from identity.policy.ledger import Applied, Policies, apply_policy, policy_history, policy_text
from identity.policy.rules import FACTS_ALONE, ApprovalNeed
from identity.tables import policies
from pipeline.db.database import Database
from pipeline.jobs.intents import Approved, Opened, PolicyMoved
from pipeline.steps import openings, refusals
from pipeline.tables import attempts, steps
from tests.ledger.acts import steps_of
from tests.ledger.approval_case import ApprovalCase
from tests.ledger.house import AS_ADA, House, intent_of


def text(word: str = "no") -> str:
    return f'format = 1\n[[rule]]\nname = "{word}"\nwhen = {{ action = "linear.*" }}\ndeny = "{word}"\n'


def apply(house: House, document: str, *, over: int | None = None) -> Applied:
    change = partial(apply_policy, over=over, act=Act(audit_id=house.ids("aud"), by="cli:test", now=datetime.now(UTC)))
    return house.database.write(lambda c: change(c, "acme", document))


def test_a_version_is_kept_beside_the_older_ones_and_is_in_the_audit(database: Database, house: House) -> None:
    assert (apply(house, text("one")).version, apply(house, text("two")).version) == (1, 2)
    assert apply(house, text("two")) == replace(apply(house, text("two")), changed=False)
    assert database.read(lambda c: policy_text(c, "acme")) == (2, text("two"))
    assert database.read(lambda c: policy_text(c, "acme", 1)) == (1, text("one"))
    assert [row.version for row in database.read(lambda c: policy_history(c, "acme"))] == [2, 1]
    told = database.read(lambda c: c.execute(select(audit.c.detail).where(audit.c.kind == "policy.applied")).scalars())
    assert [(row["replaces"], row["version"]) for row in told.all()] == [(0, 1), (1, 2)]
    assert database.read(lambda c: policy_text(c, "globex")) == (0, "")


def test_a_file_meant_for_another_version_or_that_cannot_be_used_changes_nothing(
    database: Database, house: House
) -> None:
    apply(house, text())
    with pytest.raises(BadInput, match="at policy version 1, not 0"):
        apply(house, text("two"), over=0)
    with pytest.raises(BadInput, match="not TOML"):
        apply(house, "[[")
    assert database.read(lambda c: policy_text(c, "acme"))[0] == 1


def test_an_opening_decided_under_an_older_policy_writes_nothing_and_is_decided_anew(
    database: Database, house: House
) -> None:
    job = house.claim(house.job())
    apply(house, text())
    stale = intent_of(house, job)
    assert isinstance(database.write(partial(openings.open_attempt, intent=stale)), PolicyMoved)
    refuse = partial(refusals.refuse, intent=stale, reason="no")
    assert isinstance(database.write(refuse), PolicyMoved)
    assert database.read(lambda c: c.execute(select(steps.c.id)).all()) == []
    fresh = intent_of(house, job, decision=replace(AS_ADA, policy=1, rules=("no",)))
    assert isinstance(database.write(partial(openings.open_attempt, intent=fresh)), Opened)
    assert database.read(lambda c: c.execute(select(steps.c.policy_version)).scalar_one()) == 1
    told = database.read(
        lambda c: c.execute(select(audit.c.detail).where(audit.c.kind == "attempt.opened")).scalar_one()
    )
    assert (told["policy"], told["rules"]) == (1, ["no"])


def audited(database: Database, kind: str) -> Any:
    (row,) = database.read(lambda c: c.execute(select(audit).where(audit.c.kind == kind)).all())
    return row


def test_what_a_decision_holds_a_step_to_is_in_the_audit(database: Database, house: House) -> None:
    need = ApprovalNeed(rule="two", quorum=2, approvers=frozenset({"bob", "carol"}), expires_in=timedelta(hours=1))
    case = ApprovalCase(house, need)
    limit = Money.read("5000.00 EUR")
    case.decision = replace(case.decision, constraints=replace(case.decision.constraints, max_amount=limit))
    case.ask()
    for who in ("acme.bob", "acme.carol"):
        case.say(who)
    case.again()
    given = case.ask()
    assert isinstance(given, Approved)
    assert isinstance(case.open(approval=given), Opened)
    detail = audited(database, "attempt.opened").detail
    assert (detail["max_amount"], detail["approvals"]) == ("5000.00 EUR", [{"rule": "two", "quorum": 2}])
    assert sorted(detail["approved_by"]) == ["acme.bob", "acme.carol"]


def test_a_step_that_is_held_to_nothing_says_so_by_saying_nothing(database: Database, house: House) -> None:
    database.write(partial(openings.open_attempt, intent=intent_of(house, house.claim(house.job()))))
    assert audited(database, "attempt.opened").detail.keys() == {"policy", "rules", "consented"}


def test_a_refusal_is_in_the_audit_with_the_policy_its_rules_and_the_reason(database: Database, house: House) -> None:
    job = house.claim(house.job())
    apply(house, text())
    asked = intent_of(house, job, decision=replace(AS_ADA, policy=1, rules=("no",)))
    assert database.write(partial(refusals.refuse, intent=asked, reason="the policy's rule 'no' forbids it")) is None
    row = audited(database, "step.refused")
    assert (row.detail["policy"], row.detail["rules"]) == (1, ["no"])
    assert (row.outcome, row.reason) == ("refused", "the policy's rule 'no' forbids it")
    assert (row.tenant_id, row.job_id, row.step_id, row.principal_id) == ("acme", job.id, asked.step, None)
    (step,) = steps_of(house)
    assert (row.pattern, step.pattern, step.principal_id) == (None, None, None), "nobody may do it, by no pattern"
    assert step.reason == row.reason


def test_after_an_apply_returns_no_step_opens_under_the_older_version(database: Database, house: House) -> None:
    """Raced: openers that read their version before, and one that applies in between."""
    claimed = [house.claim(house.job()) for _ in range(6)]
    applied_at: list[int] = []
    start = threading.Barrier(len(claimed) + 1)

    def open_one(number: int) -> None:
        start.wait()
        for version in range(3):
            intent = intent_of(house, claimed[number], position=version + 1, decision=replace(AS_ADA, policy=version))
            database.write(partial(openings.open_attempt, intent=intent))

    def change() -> None:
        start.wait()
        for word in ("one", "two"):
            apply(house, text(word))

    threads = [threading.Thread(target=open_one, args=(n,)) for n in range(len(claimed))]
    threads.append(threading.Thread(target=change))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = database.read(
        lambda c: c.execute(select(audit.c.number, audit.c.kind, audit.c.detail).order_by(audit.c.number)).all()
    )
    version = 0
    for row in rows:
        if row.kind == "policy.applied":
            version = row.detail["version"]
            applied_at.append(row.number)
        if row.kind == "attempt.opened":
            assert row.detail["policy"] == version
    assert len(applied_at) == 2
    assert database.read(lambda c: c.execute(select(attempts.c.id)).first()) is not None


def test_a_policy_that_this_version_cannot_read_stops_the_work_and_opens_nothing(
    database: Database, house: House
) -> None:
    known = Policies()
    current = partial(known.current, tenant="acme")
    assert database.read(current) is FACTS_ALONE
    apply(house, text())
    first = database.read(current)
    assert first.version == 1
    assert database.read(current) is first
    row = {"tenant_id": "acme", "version": 2, "sha256": "x", "document": "format = 9", "made_by": "x"}
    database.write(lambda c: c.execute(policies.insert().values(created_at=datetime.now(UTC), **row)))
    with pytest.raises(Misconfigured, match="policy version 2 of tenant acme"):
        database.read(current)
