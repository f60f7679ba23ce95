"""Audiences: registered once, authenticated by a secret that is nowhere, renewed with an overlap, removed for good."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from identity.capability import audiences
from identity.capability.audiences import OVERLAP, new_secret
from identity.errors import BadInput
from identity.model import Scope, ScopeKind
from tests.capability.capability_ledger import BANK, INVOICES, THEIRS, CapabilityLedger, secret_of
from tests.ledger.acts import until_awaited


def test_a_former_secret_is_accepted_for_a_day_beside_the_new_one(ledger: CapabilityLedger) -> None:
    secret = new_secret("other")
    until = ledger.database.write(partial(audiences.renew, id="invoices", secret=secret, act=ledger.act()))
    assert ledger.authority.audience("invoices", secret) == INVOICES
    assert ledger.authority.audience("invoices", secret_of(INVOICES)) == INVOICES
    ledger.ahead = until - ledger.now() + timedelta(seconds=1)
    assert ledger.authority.audience("invoices", secret_of(INVOICES)) is None
    assert ledger.authority.audience("invoices", secret) == INVOICES
    assert timedelta(hours=23) < OVERLAP < timedelta(days=2)


def test_renewed_once_more_with_the_same_secret_the_former_one_stays(ledger: CapabilityLedger) -> None:
    """As where the commit was not confirmed."""
    renew = partial(audiences.renew, id="invoices", secret=new_secret("other"), act=ledger.act())
    assert ledger.database.write(renew) == ledger.database.write(renew)
    assert ledger.authority.audience("invoices", secret_of(INVOICES)) == INVOICES
    (told,) = ledger.audited("audience.renewed")
    assert (told.reason, told.detail) == ("by test", {"audience": "invoices"})


def test_a_removed_audience_is_nobody_and_its_address_is_free(ledger: CapabilityLedger) -> None:
    token = ledger.token()
    ledger.database.write(partial(audiences.remove, id="invoices", act=ledger.act()))
    assert ledger.authority.audience("invoices", secret_of(INVOICES)) is None
    again = replace(INVOICES, id="invoices-2")
    ledger.database.write(partial(audiences.add, new=again, secret=new_secret("x"), act=ledger.act()))
    assert ledger.spend(token, by=again) == {"active": False}
    ledger.revoke(Scope(kind=ScopeKind.TENANT, key="acme"))
    assert ledger.spend(token, by=again) == {"active": False}, "what became of another's is not its business"


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_of_two_that_are_added_at_once_for_one_address_one_is_refused(ledger: CapabilityLedger) -> None:
    """Neither sees the other's row yet. SQLite has one writer anyway."""
    add = partial(audiences.add, secret=new_secret("x"), act=ledger.act())
    one, other = (replace(BANK, id=id, uri="https://new.example", passes_to=()) for id in ("one", "other"))
    refused: list[str] = []

    def also() -> None:
        try:
            ledger.database.write(partial(add, new=other))
        except BadInput as error:
            refused.append(str(error))

    until_awaited(ledger.database, partial(add, new=one), by=threading.Thread(target=also))
    assert len(refused) == 1
    assert ledger.database.read(partial(audiences.of_uri, uri="https://new.example")) == one


@pytest.mark.parametrize(
    "other",
    [
        {"uri": "https://other.example"},  # the id is taken
        {"id": "other", "connection": None},  # the address is
        {"id": "other", "uri": "https://other.example"},  # the provider connection is
        {"id": "other", "uri": "https://other.example", "connection": None, "passes_to": ("nobody",)},
        {"id": "other", "uri": "https://other.example", "connection": None, "passes_to": (THEIRS.id,)},
        {"id": "no id!", "uri": "https://other.example", "connection": None},
    ],
)
def test_an_audience_that_cannot_be_meant_is_refused(shared_ledger: CapabilityLedger, other: dict[str, object]) -> None:
    new = replace(INVOICES, **other)  # type: ignore[arg-type]
    add = partial(audiences.add, new=new, secret=new_secret("x"), act=shared_ledger.act())
    with pytest.raises(BadInput):
        shared_ledger.database.write(add)


def test_one_of_the_platform_takes_every_tenants_capabilities(ledger_on_sqlite: CapabilityLedger) -> None:
    shared = replace(BANK, id="shared", uri="https://shared.example", tenant=None, passes_to=())
    add = partial(audiences.add, new=shared, secret=new_secret("x"), act=ledger_on_sqlite.act())
    ledger_on_sqlite.database.write(add)
    both = [
        ledger_on_sqlite.issue(audience=shared, tenant=tenant, principal=f"{tenant}.ada")
        for tenant in ("acme", "globex")
    ]
    assert [ledger_on_sqlite.spend(ledger_on_sqlite.token(one), by=shared)["tenant"] for one in both] == [
        "acme",
        "globex",
    ]
