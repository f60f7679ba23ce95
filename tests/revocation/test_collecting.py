"""The credentials of a scope with very many accounts are taken a few at a time, all of them, and looked for once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any

import pytest
from sqlalchemy import Connection, delete, func, insert, select, update

from identity.errors import Unavailable
from identity.model import AccountKey, PrincipalKind, Scope, ScopeKind
from identity.sql.sequence import lock_exclusive, next_number
from identity.tables import accounts, grants, principals
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawal import Origin, WithdrawalState, settle
from identity.withdrawals.withdrawer import WithdrawalTurn
from pipeline.duties.reconcile import advance_withdrawals
from pipeline.revocation.declaration import load
from pipeline.revoker.provider_side import ProviderAsker, provider_side
from tests.ledger.acts import SIGNER, revoke
from tests.ledger.house import House
from tests.ledger.plans import statements_of
from tests.ledger.revokers import quiet_revoker

NOW = datetime.now(UTC)
TENANT = Scope(kind=ScopeKind.TENANT, key="acme")
CROWD = 60  # beside ada and the service


@pytest.fixture
def crowded(house: House) -> House:
    """So many more people of acme are connected. Who comes first by the account comes last by the name."""

    def fill(connection: Connection) -> None:
        names = {f"acc-{CROWD - one:03}": f"acme.p{one:03}" for one in range(CROWD)}
        kept = {"tenant_id": "acme", "created_at": NOW}
        people = [{**kept, "id": name, "kind": PrincipalKind.USER, "name": name} for name in names.values()]
        connection.execute(insert(principals), people)
        account = {**kept, "connection_id": "gh", "provider": "github", "credential": "authorization_code"}
        account |= {"state": "active", "updated_at": NOW}
        connection.execute(
            insert(accounts), [{**account, "id": id, "principal_id": name} for id, name in names.items()]
        )
        grant = {"generation": 1, "consented": next_number(connection), "token_type": "bearer", "scopes": []}
        grant |= {"access_sealed": b"sealed", "obtained_at": NOW, "consented_at": NOW}
        connection.execute(insert(grants), [{**grant, "account_id": id} for id in names])

    house.database.write(fill)
    return house


class Passes:
    """Passes of a revocation at a provider that ends all it is asked about; each look at the clock takes so long."""

    def __init__(self, house: House, *, step: int) -> None:
        self.house = house
        self.asker = ProviderAsker(
            house.database, self._ask, clock=lambda: NOW, monotonic=partial(next, count(step=step))
        )
        self.revoker = quiet_revoker(house.database, SIGNER, provider_side=provider_side, withdraw=self.asker.advance)

    def _ask(self, withdrawal: str, _others: Sequence[str]) -> WithdrawalTurn:
        self.house.database.write(lambda c: settle(c, withdrawal, to=WithdrawalState.DONE, reason=None, now=NOW))
        return WithdrawalTurn()

    def count(self, state: str | None = None) -> int:
        found = select(func.count()).select_from(withdrawals)
        of_state = found if state is None else found.where(withdrawals.c.state == state)
        return int(self.house.database.read(lambda c: c.execute(of_state).scalar_one()))

    def row(self, made: str) -> Any:
        return self.house.database.read(partial(load, revocation=made))


def test_what_a_pass_has_no_time_to_take_is_taken_by_the_next_and_the_receipt_waits_for_it(crowded: House) -> None:
    passes, made = Passes(crowded, step=1), revoke(crowded, TENANT)
    assert passes.revoker.advance(made)
    assert passes.count() == 25, "it took as many as one transaction takes, and went on to ask"
    assert passes.count("done") > 0
    assert passes.row(made).collected_at is None
    assert passes.asker.due() == [made]

    ended = update(withdrawals).values(state=WithdrawalState.DONE, finished_at=NOW)
    crowded.database.write(lambda c: c.execute(ended).rowcount)
    assert passes.asker.due() == [made], "of those that were taken nothing is due any more"
    assert crowded.database.read(partial(provider_side, revocation=made)).answer == "pending"
    ticks = 0
    while passes.asker.due():
        advance_withdrawals(passes.revoker, passes.asker.due)
        ticks += 1
        assert ticks < 100
    row = passes.row(made)
    assert row.collected_at is not None
    assert passes.count("done") == CROWD + 2
    assert (row.receipt["provider"]["answer"], len(row.receipt["provider"]["accounts"])) == ("done", CROWD + 2)


def test_tokens_that_expired_while_they_were_held_keep_no_collection_from_its_end(crowded: House) -> None:
    passes, made = Passes(crowded, step=1), revoke(crowded, TENANT)

    def expire(connection: Connection) -> None:
        gone = connection.execute(
            delete(grants).where(grants.c.access_sealed == b"sealed").returning(grants.c.account_id)
        )
        expired = {"origin": Origin.CONFINED, "credential": "installation", "generation": 1, "consented": 1}
        expired |= {"state": "held", "expires_at": NOW, "due_at": NOW, "created_at": NOW}
        rows = [{**expired, "id": f"wit-{account}", "account_id": account} for account in gone.scalars()]
        connection.execute(insert(withdrawals), rows)

    crowded.database.write(expire)
    for _ in range(2):  # the second finds that nothing is left
        assert passes.revoker.advance(made)
    assert (passes.row(made).collected_at, passes.count("done"), passes.count("held")) == (NOW, 2, CROWD)


def test_what_came_late_is_taken_before_what_is_left_of_a_large_scope(crowded: House) -> None:
    passes, made = Passes(crowded, step=1), revoke(crowded, TENANT)
    assert passes.revoker.advance(made)
    late = {
        "origin": Origin.CONFINED,
        "credential": "installation",
        "generation": 1,
        "consented": 1,
        "state": "pending",
    }
    late |= {"id": "late", "account_id": "acc-acme.ada", "due_at": NOW, "created_at": NOW}
    crowded.database.write(lambda c: c.execute(insert(withdrawals).values(late)).rowcount)
    passes.asker.advance(made)
    taken = select(withdrawals.c.revocation_id).where(withdrawals.c.id == "late")
    assert crowded.database.read(lambda c: c.execute(taken).scalar_one()) == made
    assert passes.row(made).collected_at is None


def test_where_no_more_can_be_taken_now_what_was_taken_is_asked_about(
    crowded: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held_up(*_: object, **__: object) -> None:
        raise Unavailable("another has the lock")

    passes, made = Passes(crowded, step=1), revoke(crowded, TENANT)
    assert passes.revoker.advance(made)
    before = passes.count("done")
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.revoker.collecting.lock_exclusive", held_up)
        with pytest.raises(Unavailable, match="could not be taken or asked about: another has the lock"):
            passes.asker.advance(made)
    assert before < passes.count("done") < CROWD
    assert passes.row(made).collected_at is None
    passes.asker.advance(made)
    assert passes.count() == 50


def test_amid_a_collection_a_person_may_connect_again_and_be_revoked_again(crowded: House) -> None:
    passes, first = Passes(crowded, step=1), revoke(crowded, TENANT)
    assert passes.revoker.advance(first)
    crowded.connect("acme", "acme.ada")
    crowded.connect("acme", "acme.p000")  # of the last accounts but ada's
    second = revoke(crowded, Scope(kind=ScopeKind.USER, key="acme.ada"))
    assert passes.revoker.advance(second)
    while passes.asker.due():
        advance_withdrawals(passes.revoker, passes.asker.due)
    assert passes.row(first).collected_at == passes.row(second).collected_at == NOW
    columns = withdrawals.c
    taken = select(columns.account_id, columns.generation, columns.revocation_id)
    by = crowded.database.read(lambda c: {(row[0], row[1]): row[2] for row in c.execute(taken)})
    assert len(by) == passes.count() == CROWD + 3
    assert by["acc-acme.ada", 2] == second
    assert {one for account, one in by.items() if account[0] != "acc-acme.ada"} == {first}
    kept = select(grants.c.account_id).where(grants.c.access_sealed.is_not(None), grants.c.account_id.like("acc-%"))
    assert f"acc-{CROWD:03}" in crowded.database.read(lambda c: list(c.execute(kept).scalars()))


def test_a_scope_of_which_all_was_taken_is_not_looked_through_again(crowded: House) -> None:
    passes, made = Passes(crowded, step=0), revoke(crowded, TENANT)
    assert passes.revoker.advance(made)
    assert (passes.count("done"), passes.asker.due()) == (CROWD + 2, [])
    looks = [statement for statement, _ in statements_of(lambda: passes.asker.advance(made)) if "accounts" in statement]
    assert looks
    assert not [look for look in looks if "grants" in look]


def test_a_stopped_agent_has_nothing_to_be_taken(house: House) -> None:
    passes, made = Passes(house, step=0), revoke(house, Scope(kind=ScopeKind.AGENT, key="tester"))
    assert passes.revoker.advance(made)
    assert (passes.count(), passes.asker.due()) == (0, [])


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_accounts_are_locked_in_the_order_of_their_keys(crowded: House) -> None:
    """As a signal that means many of them does: else the two wait for each other in a ring."""
    passes, made = Passes(crowded, step=0), revoke(crowded, TENANT)
    said = statements_of(lambda: passes.asker.advance(made))
    locked = [parameters["key"] for statement, parameters in said if "pg_advisory_xact_lock(" in statement]
    keys = [AccountKey(tenant="acme", connection="gh", principal=f"acme.p{one:03}") for one in range(CROWD)]
    first = [Scope(kind=ScopeKind.ACCOUNT, key=str(key)) for key in keys[-25:]]
    assert locked[:25] == [_key_of(crowded, scope) for scope in first]


def _key_of(house: House, scope: Scope) -> int:
    """What a scope is locked by."""
    said = statements_of(lambda: house.database.write(partial(lock_exclusive, scope=scope)))
    (key,) = [parameters["key"] for statement, parameters in said if "pg_advisory_xact_lock(" in statement]
    return int(key)
