"""A token that is in no grant has a row, so that a revocation finds it, and nobody else does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import select

from identity.accounts.scopes import revoke_scope
from identity.accounts.states import get_account
from identity.model import AccountKey, Scope, ScopeKind
from identity.sql.sequence import lock_exclusive, next_number
from identity.tables import grants
from identity.withdrawals.held_tokens import HeldToken, keep_token, take_held
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.taking import EndedConsents
from tests.ledger.house import House

ADA = AccountKey(tenant="acme", connection="gh", principal="acme.ada")
NOW = datetime.now(UTC)


def held(house: House, id: str, *, lasts: timedelta = timedelta(hours=1), consented: int | None = None) -> bool:
    """Whether a token of ada's that lives so long may be used."""

    def write(c: Any) -> bool:
        grant = c.execute(select(grants).where(grants.c.account_id == "acc-acme.ada")).one()
        new = HeldToken(
            id=id,
            account=get_account(c, "acc-acme.ada"),
            generation=grant.generation,
            consented=grant.consented if consented is None else consented,
            access_sealed=b"sealed",
            expires_at=NOW + lasts,
        )
        return keep_token(c, new, now=NOW)

    return house.database.write(write)


def revoke(house: House, scope: Scope) -> int:
    def write(c: Any) -> int:
        lock_exclusive(c, scope)
        number = next_number(c)
        revoke_scope(c, scope, number, reason="test", now=NOW)
        return number

    return house.database.write(write)


def take(house: House, before: int) -> list[str]:
    """What a revocation of that number takes."""
    account = house.database.read(partial(get_account, account="acc-acme.ada"))
    return house.database.write(
        partial(take_held, account=account, ended=EndedConsents(upto=before), revocation="rev_1", now=NOW)
    )


def states(house: House) -> dict[str, tuple[str, str | None]]:
    rows = house.database.read(lambda c: c.execute(select(withdrawals)).all())
    return {row.id: (row.state, row.revocation_id) for row in rows}


def test_a_token_is_held_until_a_revocation_of_its_consent_takes_it_once(house: House) -> None:
    assert held(house, "wit_1")
    assert held(house, "wit_1"), "held again after a lost commit"
    assert states(house) == {"wit_1": ("held", None)}
    assert take(house, before=0) == [], "an older revocation does not reach a later consent"
    number = revoke(house, Scope(kind=ScopeKind.USER, key="acme.ada"))
    assert take(house, before=number) == ["wit_1"]
    assert states(house) == {"wit_1": ("pending", "rev_1")}
    assert take(house, before=number) == []


def test_a_token_of_a_revoked_consent_may_not_be_used_and_is_to_end(house: House) -> None:
    revoke(house, Scope(kind=ScopeKind.ACCOUNT, key=str(ADA)))
    assert not held(house, "wit_1")
    assert states(house) == {"wit_1": ("pending", None)}


def test_a_token_that_expired_is_forgotten_when_the_next_is_held_and_never_asked_about(house: House) -> None:
    assert held(house, "wit_old", lasts=-timedelta(seconds=1))
    assert take(house, before=house.database.write(next_number)) == []
    assert held(house, "wit_new")
    assert states(house) == {"wit_new": ("held", None)}
