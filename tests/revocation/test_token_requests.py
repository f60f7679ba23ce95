"""The requests for tokens that were on the wire when a revocation came are on its receipt, and no others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, Table, delete, select, text, update

from identity.accounts.grants import get_grant
from identity.accounts.states import get_account
from identity.minting.mints import GRANTED, Mint, begin_mint, end_mint, hold_minted
from identity.minting.tables import mints
from identity.model import Scope, ScopeKind
from identity.refresh.intents import IntentState, RefreshIntent, get_intent, open_intent, settle
from identity.refresh.tables import refresh_intents
from identity.sql.sequence import lock_exclusive, next_number
from pipeline.ledger.revision import newest
from pipeline.migrations import upgrade
from pipeline.revocation import declaration
from pipeline.revocation.tables import revocations
from tests.ledger.acts import AWAITED, SIGNER, receipt_of, revoke
from tests.ledger.house import House, account_scope
from tests.ledger.plans import plans_of
from tests.ledger.revokers import quiet_revoker
from tests.waiting import eventually

ADA, SERVICE = "acc-acme.ada", "acc-acme.service"


def refreshes(house: House, account: str = ADA) -> RefreshIntent:
    """A refresh of the account's present generation that is on the wire."""
    now = datetime.now(UTC)

    def begin(c: Any) -> RefreshIntent:
        own = get_grant(c, account)
        assert own is not None
        new = RefreshIntent(
            id=house.ids("ref"),
            account=account,
            generation=own.generation,
            consented=own.consented,
            opened=next_number(c),
            started_at=now,
            send_before=now + timedelta(seconds=5),
            settled_by=now + timedelta(seconds=30),
        )
        assert open_intent(c, new, former=None) is not None
        return new

    return house.database.write(begin)


def ends(house: House, intent: RefreshIntent, to: IntentState) -> None:
    def end(c: Any) -> None:
        stored = get_intent(c, intent.id)
        assert stored is not None
        assert settle(c, stored, to=to, outcome=str(to), now=datetime.now(UTC))

    house.database.write(end)


def mint(house: House, account: str = ADA) -> Mint:
    """A token for one repository that is being asked for."""

    def begin(c: Any) -> Mint:
        own = get_grant(c, account)
        assert own is not None
        new = Mint(
            id=house.ids("min"),
            account=get_account(c, account),
            generation=own.generation,
            consented=own.consented,
            repository="shop",
            scopes=(),
            started_at=datetime.now(UTC),
        )
        assert begin_mint(c, new) is not None
        return new

    return house.database.write(begin)


def mint_is_refused(house: House, one: Mint) -> None:
    house.database.write(partial(end_mint, mint=one.id, outcome="refused", now=datetime.now(UTC)))


def advanced(house: House, made: str) -> list[dict[str, Any]]:
    """What its receipt says of them by now."""
    assert quiet_revoker(house.database, SIGNER).advance(made)
    told: list[dict[str, Any]] = receipt_of(house, made)["token_requests"]
    return told


def open_ends(house: House, made: str) -> int:
    return int(house.database.read(partial(declaration.load, revocation=made)).open_ends)


def test_a_refresh_and_a_mint_on_the_wire_are_named_and_how_they_ended_once_that_is_known(house: House) -> None:
    refreshing, minting = refreshes(house), mint(house)
    made = revoke(house, account_scope())
    first = advanced(house, made)
    assert [(one["id"], one["kind"], one["account"], one["generation"]) for one in first] == [
        (refreshing.id, "refresh", ADA, 1),
        (minting.id, "mint", ADA, 1),
    ]
    assert [(one["outcome"], one["ended_at"]) for one in first] == [("open", None), ("open", None)]
    assert open_ends(house, made) == 2, "each will have an end"
    ends(house, refreshing, IntentState.DISCARDED)
    mint_is_refused(house, minting)
    second = advanced(house, made)
    assert receipt_of(house, made)["revision"] == 2
    assert [(one["id"], one["outcome"]) for one in second] == [(refreshing.id, "discarded"), (minting.id, "refused")]
    assert all(one["ended_at"] for one in second)
    assert open_ends(house, made) == 0


def test_a_mint_whose_end_nobody_wrote_is_waited_for_only_so_long(house: House) -> None:
    """Its process died. Else the receipt would be looked at, and what it tells of be kept, for good."""
    minting = mint(house)
    made = revoke(house, account_scope())
    (first,) = advanced(house, made)
    assert (first["outcome"], open_ends(house, made)) == ("open", 1)
    long_ago = update(mints).values(started_at=datetime.now(UTC) - timedelta(minutes=2))
    house.database.write(lambda c: c.execute(long_ago).rowcount)
    (second,) = advanced(house, made)
    assert (second["id"], second["outcome"], second["ended_at"]) == (minting.id, "unknown", None)
    assert (receipt_of(house, made)["revision"], open_ends(house, made)) == (2, 0)


def test_what_had_ended_before_or_began_after_or_is_anothers_is_not_named(house: House) -> None:
    ended, minted = refreshes(house), mint(house)
    ends(house, ended, IntentState.FAILED)
    mint_is_refused(house, minted)
    others = refreshes(house, SERVICE)
    made = revoke(house, account_scope())
    house.connect("acme", "acme.ada")
    refreshes(house)
    mint(house)
    assert advanced(house, made) == []
    of_all = revoke(house, Scope(kind=ScopeKind.TENANT, key="acme"))
    assert others.id in [one["id"] for one in advanced(house, of_all)]


def test_a_refresh_whose_outcome_nobody_knows_may_yet_be_sent_and_is_named(house: House) -> None:
    """Its process stands still between its last look at the clock and the socket."""
    asked = refreshes(house)
    ends(house, asked, IntentState.UNKNOWN)
    made = revoke(house, account_scope())
    (told,) = advanced(house, made)
    assert (told["id"], told["outcome"], told["ended_at"]) == (asked.id, "unknown", None)


def test_a_refresh_that_is_presented_again_in_the_place_of_one_that_failed_is_on_the_wire(house: House) -> None:
    failed = refreshes(house)
    ends(house, failed, IntentState.FAILED)

    def again(c: Any) -> str:
        former = get_intent(c, failed.id)
        assert former is not None
        new = replace(failed, id=house.ids("ref"), opened=next_number(c))
        assert open_intent(c, new, former=former) is not None
        return new.id

    id = house.database.write(again)
    made = revoke(house, account_scope())
    assert [one["id"] for one in advanced(house, made)] == [id]


def test_a_stopped_agents_receipt_names_none(house: House) -> None:
    """Others use the same credentials, and may go on renewing them."""
    refreshes(house)
    assert advanced(house, revoke(house, Scope(kind=ScopeKind.AGENT, key="tester"))) == []


@pytest.mark.parametrize(("table", "begins"), [(refresh_intents, refreshes), (mints, mint)], ids=["refresh", "mint"])
def test_what_retention_has_forgotten_is_told_in_the_words_of_the_receipt_before(
    house: House, table: Table, begins: Callable[[House], RefreshIntent | Mint]
) -> None:
    asked = begins(house)
    made = revoke(house, account_scope())
    before = advanced(house, made)
    assert [one["id"] for one in before] == [asked.id]
    house.database.write(lambda c: c.execute(delete(table)).rowcount)
    assert advanced(house, made) == before


def test_a_receipt_from_before_they_were_told_stays_as_it_was(house: House) -> None:
    refreshes(house)
    made = revoke(house, account_scope())
    advanced(house, made)
    older = {name: value for name, value in receipt_of(house, made).items() if name != "token_requests"}
    put_back = update(revocations).where(revocations.c.id == made)
    put_back = put_back.values(receipt=older, signature=SIGNER.sign(older), open_ends=1)
    house.database.write(lambda c: c.execute(put_back).rowcount)
    assert quiet_revoker(house.database, SIGNER).advance(made)
    assert (receipt_of(house, made), open_ends(house, made)) == (older, 0)


@pytest.mark.as_owner
def test_among_many_that_have_ended_those_on_the_wire_are_found_by_an_index(house: House) -> None:
    ended = refreshes(house)
    ends(house, ended, IntentState.FAILED)

    def fill(c: Any) -> None:
        row = dict(c.execute(select(refresh_intents)).mappings().one())
        many = [{**row, "id": f"ref-{n}", "generation": 100 + n, "settled": -n} for n in range(2_000)]
        c.execute(refresh_intents.insert(), many)

    house.database.write(fill)
    house.database.write(lambda c: c.execute(text("analyze")).rowcount)
    on_the_wire = refreshes(house, SERVICE)
    made = revoke(house, Scope(kind=ScopeKind.TENANT, key="acme"))
    told = plans_of(house.database, lambda: advanced(house, made), large=True)
    assert [one["id"] for one in receipt_of(house, made)["token_requests"]] == [on_the_wire.id]
    (plan,) = (plan for plan in told if "refresh_intents" in plan)
    assert "ix_refresh_intents_settled" in plan


@pytest.mark.as_owner
def test_what_had_ended_before_the_upgrade_that_numbers_ends_is_not_named_after_it(house: House) -> None:
    ended, unknown = refreshes(house), refreshes(house, SERVICE)
    ends(house, ended, IntentState.FAILED)
    ends(house, unknown, IntentState.UNKNOWN)
    minted, minting = mint(house), mint(house)
    mint_is_refused(house, minted)

    def as_it_was(c: Connection) -> None:
        for table in (refresh_intents, mints):
            c.execute(text(f"drop index ix_{table.name}_settled"))
            c.execute(text(f"alter table {table.name} drop column settled"))
        c.execute(text("update alembic_version set version_num = '0037'"))

    house.database.write(as_it_was)
    upgrade(house.database, "0038")
    newest_again = text("update alembic_version set version_num = :newest")  # other tests have this database after it
    house.database.write(lambda c: c.execute(newest_again, {"newest": newest()}).rowcount)
    made = revoke(house, Scope(kind=ScopeKind.TENANT, key="acme"))
    assert {one["id"] for one in advanced(house, made)} == {unknown.id, minting.id}


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_token_that_was_minted_while_a_revocation_was_being_declared_is_named(house: House) -> None:
    """What becomes of it is decided after the revocation, so its end has the later number too."""
    minting = mint(house)
    usable: list[bool] = []
    held = partial(hold_minted, mint=minting, sealed=b"sealed", expires_at=None, outcome=GRANTED, now=datetime.now(UTC))
    holding = threading.Thread(target=lambda: usable.append(house.database.write(held)))
    made = house.ids("rev")

    def declare(c: Connection) -> None:
        lock_exclusive(c, account_scope())
        holding.start()
        eventually(lambda: c.execute(AWAITED).scalar_one(), what="it waits for the account's lock")
        cause = declaration.Cause(source="test", by="test", reason="test")
        declaration.declare(c, account_scope(), cause, id=made, tenant="acme", now=datetime.now(UTC))

    house.database.write(declare)
    holding.join()
    assert usable == [False]
    (told,) = advanced(house, made)
    assert (told["id"], told["outcome"]) == (minting.id, GRANTED)
