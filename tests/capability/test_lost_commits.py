"""A commit whose outcome nobody knows: the spend and the exchange find out by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
from sqlalchemy import Connection

from identity.capability.authority import Authority
from identity.capability.token_exchange import Exchanged
from identity.errors import Unavailable
from identity.store import CommitUnknown, Store
from tests.capability.capability_ledger import ASKED, BANK, INVOICES, PAID, CapabilityLedger

T = TypeVar("T")


class Uncertain:
    """A ledger that commits, and then does not say so, as often as it is told to."""

    def __init__(self, store: Store, lost: int) -> None:
        self._store = store
        self._lost = lost

    def write(self, fn: Callable[[Connection], T]) -> T:
        outcome = self._store.write(fn)
        if self._lost:
            self._lost -= 1
            raise CommitUnknown
        return outcome

    def read(self, fn: Callable[[Connection], T]) -> T:
        return self._store.read(fn)


def uncertain(ledger: CapabilityLedger, lost: int) -> Authority:
    return Authority(Uncertain(ledger.database, lost), ledger.issuer, ids=ledger.ids, clock=ledger.now)


def test_a_spend_whose_commit_was_not_confirmed_is_one_spend(ledger_on_sqlite: CapabilityLedger) -> None:
    said = uncertain(ledger_on_sqlite, 1).introspect(ledger_on_sqlite.token(), INVOICES, request_sha256=PAID)
    assert said["spend"] == "again"
    assert len(ledger_on_sqlite.audited("capability.spent")) == 1


def test_an_exchange_whose_commit_was_not_confirmed_is_one_exchange(ledger_on_sqlite: CapabilityLedger) -> None:
    token = ledger_on_sqlite.token()
    made = uncertain(ledger_on_sqlite, 1).exchange(token, INVOICES, target=BANK.uri, asked=ASKED)
    assert isinstance(made, Exchanged)
    again = ledger_on_sqlite.authority.exchange(token, INVOICES, target=BANK.uri, asked=ASKED)
    assert isinstance(again, Exchanged)
    assert again.capability == made.capability


def test_a_ledger_that_confirms_nothing_is_asked_again_later(ledger_on_sqlite: CapabilityLedger) -> None:
    with pytest.raises(Unavailable):
        uncertain(ledger_on_sqlite, 2).introspect(ledger_on_sqlite.token(), INVOICES, request_sha256=PAID)
