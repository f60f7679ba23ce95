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
from tests.capability.court import ASKED, BANK, INVOICES, PAID, Court

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


def uncertain(court: Court, lost: int) -> Authority:
    return Authority(Uncertain(court.database, lost), court.issuer, ids=court.ids, clock=court.now)


def test_a_spend_whose_commit_was_not_confirmed_is_one_spend(court_on_sqlite: Court) -> None:
    said = uncertain(court_on_sqlite, 1).introspect(court_on_sqlite.token(), INVOICES, request_sha256=PAID)
    assert said["spend"] == "again"
    assert len(court_on_sqlite.audited("capability.spent")) == 1


def test_an_exchange_whose_commit_was_not_confirmed_is_one_exchange(court_on_sqlite: Court) -> None:
    token = court_on_sqlite.token()
    made = uncertain(court_on_sqlite, 1).exchange(token, INVOICES, target=BANK.uri, asked=ASKED)
    assert isinstance(made, Exchanged)
    again = court_on_sqlite.authority.exchange(token, INVOICES, target=BANK.uri, asked=ASKED)
    assert isinstance(again, Exchanged)
    assert again.capability == made.capability


def test_a_ledger_that_confirms_nothing_is_asked_again_later(court_on_sqlite: Court) -> None:
    with pytest.raises(Unavailable):
        uncertain(court_on_sqlite, 2).introspect(court_on_sqlite.token(), INVOICES, request_sha256=PAID)
