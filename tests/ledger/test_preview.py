"""What whoever has to decide is shown of a revocation: what it would end, what would follow, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from sqlalchemy import select

from identity.accounts.states import move_account
from identity.model import AccountState, Scope, ScopeKind
from identity.providers.profile import Reach
from identity.tables import accounts
from pipeline.authoring.registry import Registry
from pipeline.db.database import Database
from pipeline.revoker.preview import Preview, preview
from tests.ledger.acts import done, open_, revoke
from tests.ledger.house import House, account_scope, intent_of
from tests.ledger.undoing import house_that_undoes
from tests.ledgers import MOSTLY_SQLITE

pytestmark = MOSTLY_SQLITE

USER = Scope(kind=ScopeKind.USER, key="acme.ada")
TENANT = Scope(kind=ScopeKind.TENANT, key="acme")


def look(house: House, scope: Scope) -> Preview:
    registry, now = Registry([house.workflow]), datetime.now(UTC)
    return house.database.read(lambda c: preview(c, scope, registry, now=now))


def test_what_a_wider_revocation_has_ended_already_is_not_counted_again(house: House) -> None:
    before = look(house, account_scope())
    assert (before.accounts, [one.accounts for one in before.provider]) == (1, [1])
    revoke(house, USER)
    after = look(house, account_scope())
    assert (after.accounts, after.provider) == (0, ())
    assert look(house, TENANT).accounts == 1, "the service's"


def test_a_suspended_account_that_a_wider_revocation_has_ended_is_not_asked_about_again(house: House) -> None:
    (account,) = house.database.read(
        lambda c: c.execute(select(accounts.c.id).where(accounts.c.principal_id == USER.key)).scalars().all()
    )
    suspend = partial(move_account, to=AccountState.SUSPENDED, reason="the provider said so", now=datetime.now(UTC))
    house.database.write(lambda c: suspend(c, account))
    assert [one.accounts for one in look(house, account_scope()).provider] == [1]
    revoke(house, USER)
    assert look(house, account_scope()).provider == ()


def test_which_done_steps_would_be_undone_is_shown_and_by_what(database: Database) -> None:
    house = house_that_undoes(database)
    asked = intent_of(house, house.claim(house.job()))
    open_(house, asked)
    done(house, asked)
    (undo,) = look(house, account_scope()).to_undo
    assert (undo.workflow, undo.action, undo.steps, undo.by) == ("say_it", "github.Say", 1, "github.Say")
    assert undo.why_not is None
    (undo,) = look(house, TENANT).to_undo
    assert undo.why_not is not None
    assert "tenant acme itself" in undo.why_not


def test_what_a_provider_would_be_asked_is_shown_with_how_far_it_reaches(house: House) -> None:
    told = {one.credential: (one.accounts, one.ends) for one in look(house, TENANT).provider}
    assert told == {"authorization_code": (1, Reach.AUTHORIZATION), "static": (1, None)}
    assert look(house, Scope(kind=ScopeKind.AGENT, key="tester")).provider == ()
