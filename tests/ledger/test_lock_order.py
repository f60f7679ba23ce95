"""The order in which locks are taken, the same everywhere: else two transactions wait for each other in a ring.

For PostgreSQL: SQLite has one writer, and no locks.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest

from identity.model import LOCK_ORDER, Scope, ScopeKind
from identity.sql.sequence import lock_exclusive
from pipeline.authoring.registry import Registry
from pipeline.db.database import Database
from pipeline.jobs.intents import Approved
from pipeline.revocation.compensation import compensable, compensate_step
from tests.ledger.acts import done, open_, revoke
from tests.ledger.house import House, account_scope
from tests.ledger.house import intent_of as intent
from tests.ledger.plans import statements_of
from tests.ledger.undoing import house_that_undoes, say_and_undo

pytestmark = pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)


def key_of(house: House, scope: Scope) -> int:
    """What a scope is locked by."""
    locks = statements_of(lambda: house.database.write(partial(lock_exclusive, scope=scope)))
    (key,) = [parameters["key"] for statement, parameters in locks if "pg_advisory_xact_lock(" in statement]
    return int(key)


def test_an_opening_locks_its_scopes_and_its_approvers_in_the_one_order(house: House) -> None:
    job = house.claim(house.job())
    approved = Approved(id="app", by=("acme.zoe", "acme.abe"))
    asked = replace(intent(house, job), approval=approved)
    said = statements_of(lambda: open_(house, asked))
    ((statement, parameters),) = [one for one in said if "pg_advisory_xact_lock_shared" in one[0]]
    names = [name for name in parameters if f"%({name})s" in statement]
    names.sort(key=lambda name: statement.index(f"%({name})s"))

    people = (Scope(kind=ScopeKind.USER, key=person) for person in ("acme.abe", "acme.ada", "acme.zoe"))
    of_kind = {scope.kind: [scope] for scope in asked.lease.scope_list} | {ScopeKind.USER: list(people)}
    wanted = [scope for kind in LOCK_ORDER for scope in of_kind[kind]]
    assert [kind.value for kind in LOCK_ORDER] == ["tenant", "connection", "agent", "user", "account"]
    assert [parameters[name] for name in names] == [key_of(house, scope) for scope in wanted]


def test_a_compensation_locks_its_scopes_before_the_job(database: Database) -> None:
    """A replay by the API has the tenant before the job: between the two a revocation of the tenant may wait."""
    house = house_that_undoes(database)
    asked = intent(house, house.claim(house.job()))
    open_(house, asked)
    done(house, asked, {"id": "7"})
    made = revoke(house, account_scope())
    open_(house, intent(house, asked.job, position=2))
    workflows = Registry([say_and_undo])
    (step,) = database.read(partial(compensable, among=[asked.job.id], workflows=workflows))
    undo = partial(compensate_step, step=step, revocation=made, workflows=workflows, now=datetime.now(UTC))
    undo = partial(undo, job=house.ids("job"), audit_id=house.ids("aud"))
    said = [statement for statement, _ in statements_of(lambda: database.write(undo))]
    (scopes,) = [place for place, statement in enumerate(said) if "pg_advisory_xact_lock_shared" in statement]
    (job,) = [place for place, statement in enumerate(said) if "FOR UPDATE" in statement]
    assert scopes < job
