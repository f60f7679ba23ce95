"""A commit whose outcome nobody knows: the spend and the exchange find out by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
from sqlalchemy import Connection

from identity.capability.authority import Authority
from identity.capability.token_exchange import Exchanged
from identity.errors import Unavailable
from identity.model import Scope, ScopeKind
from identity.sql.store import CommitUnknown, Store
from tests.capability.capability_ledger import ASKED, BANK, INVOICES, PAID, CapabilityLedger

T = TypeVar("T")


class Uncertain:
    """A ledger that commits, and then does not say so, as often as it is told to; *meanwhile* happens after that."""

    def __init__(self, store: Store, lost: int, meanwhile: Callable[[], object] = lambda: None) -> None:
        self._store = store
        self._lost = lost
        self._meanwhile = meanwhile

    def write(self, fn: Callable[[Connection], T]) -> T:
        outcome = self._store.write(fn)
        if self._lost:
            self._lost -= 1
            self._meanwhile()
            raise CommitUnknown
        return outcome

    def read(self, fn: Callable[[Connection], T]) -> T:
        return self._store.read(fn)


def uncertain(ledger: CapabilityLedger, lost: int, meanwhile: Callable[[], object] = lambda: None) -> Authority:
    return Authority(Uncertain(ledger.database, lost, meanwhile), ledger.issuer, ids=ledger.ids, clock=ledger.now)


def test_a_spend_whose_commit_was_not_confirmed_is_one_spend(ledger_on_sqlite: CapabilityLedger) -> None:
    said = uncertain(ledger_on_sqlite, 1).introspect(ledger_on_sqlite.token(), INVOICES, request_sha256=PAID)
    assert said["spend"] == "again"
    assert len(ledger_on_sqlite.audited("capability.spent")) == 1


def test_so_is_one_that_does_not_say_its_request(ledger: CapabilityLedger) -> None:
    token = ledger.token()
    said = uncertain(ledger, 1).introspect(token, INVOICES, request_sha256=None)
    assert said["spend"] == "first"
    assert ledger.spend(token, request=None)["reason"] == "spent"
    assert [len(ledger.audited(f"capability.{one}")) for one in ("spent", "refused")] == [1, 1]


@pytest.mark.parametrize("request_sha256", [PAID, None])
@pytest.mark.parametrize("why", ["revoked", "closed"])
def test_what_ended_before_the_spend_was_confirmed_is_refused(
    ledger_on_sqlite: CapabilityLedger, why: str, request_sha256: str | None
) -> None:
    ledger, capability = ledger_on_sqlite, ledger_on_sqlite.issue()
    user = Scope(kind=ScopeKind.USER, key="acme.ada")
    ends = {"revoked": lambda: ledger.revoke(user), "closed": lambda: ledger.close(capability)}
    asked = uncertain(ledger, 1, meanwhile=ends[why])
    said = asked.introspect(ledger.token(capability), INVOICES, request_sha256=request_sha256)
    assert (said["active"], said["reason"]) == (False, why)
    assert [len(ledger.audited(f"capability.{one}")) for one in ("spent", "refused")] == [1, 1]


@pytest.mark.parametrize("request_sha256", [PAID, None])
def test_a_refusal_whose_commit_was_not_confirmed_is_one_refusal(
    ledger: CapabilityLedger, request_sha256: str | None
) -> None:
    token = ledger.token()
    ledger.spend(token, request=None)
    said = uncertain(ledger, 1).introspect(token, INVOICES, request_sha256=request_sha256)
    assert (said["active"], said["reason"]) == (False, "spent")
    assert len(ledger.audited("capability.refused")) == 1


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
