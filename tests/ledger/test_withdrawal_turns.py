"""Which withdrawal has its turn: a revocation may have very many, and a provider takes only so many an hour."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from sqlalchemy import insert

from identity.model import Credential
from identity.withdrawals import Origin
from identity.withdrawals.tables import withdrawals
from pipeline.revocation.provider_side import ProviderAsker
from tests.ledger.acts import revoke
from tests.ledger.house import House, account_scope

NOW = datetime.now(UTC)
SECOND = timedelta(seconds=1)
MANY = 300  # more than are looked at together


def _withdrawal(id: str, revocation: str | None, **values: Any) -> dict[str, Any]:
    row = {
        "id": id,
        "account_id": "acc-acme.ada",
        "origin": Origin.GRANT,
        "credential": Credential.AUTHORIZATION_CODE,
        "generation": 1,
        "consented": 1,
        "revocation_id": revocation,
        "state": "pending",
        "access_sealed": b"sealed",
        "refresh_sealed": b"sealed",
        "expires_at": NOW + timedelta(hours=1),
        "due_at": NOW,
        "created_at": NOW,
    }
    return {**row, **values}


class Provider:
    """Lets itself be asked about everything, unless it has no room for some; each request takes so many seconds."""

    def __init__(self, house: House, *, takes: float = 0) -> None:
        self.house, self.takes = house, takes
        self.asked: list[str] = []
        self.no_room: set[str] = set()
        self.seconds = 0.0
        self.asker = ProviderAsker(house.database, self._ask, clock=lambda: NOW, monotonic=lambda: self.seconds)

    def _ask(self, withdrawal: str) -> bool:
        self.asked.append(withdrawal)
        self.seconds += self.takes
        return withdrawal not in self.no_room

    def owe(self, *rows: dict[str, Any]) -> None:
        self.house.database.write(lambda c: c.execute(insert(withdrawals), list(rows)).rowcount)


def _names() -> Iterator[str]:
    return (f"wit-{place:04}" for place in count())


@pytest.mark.parametrize("of_connects", [False, True])
def test_what_a_provider_has_no_room_for_holds_up_nothing_that_it_is_asked_elsewhere(
    house: House, of_connects: bool
) -> None:
    provider, names = Provider(house), _names()
    made = None if of_connects else revoke(house, account_scope())
    kind = {"origin": Origin.CONNECT} if of_connects else {}
    many = [_withdrawal(next(names), made, due_at=NOW - SECOND, **kind) for _ in range(MANY)]
    expired = _withdrawal(next(names), made, expires_at=NOW - SECOND, **kind)
    minted = [_withdrawal(next(names), made, credential=Credential.INSTALLATION, **kind) for _ in range(2)]
    provider.owe(*many, expired, *minted)
    provider.no_room = {row["id"] for row in many}
    if made is None:
        provider.asker.ask_leftovers()
    else:
        provider.asker.advance(made)
    assert [one for one in provider.asked if one.startswith("wit")] == [
        row["id"] for row in (many[0], expired, *minted)
    ]


def test_what_has_been_due_for_longest_is_asked_about_first(house: House) -> None:
    provider, made = Provider(house), revoke(house, account_scope())
    provider.owe(*(_withdrawal(f"wit-{place}", made, due_at=NOW - place * SECOND) for place in range(1, 4)))
    provider.asker.advance(made)
    assert provider.asked[:3] == ["wit-3", "wit-2", "wit-1"]


def test_a_large_revocation_lets_the_small_ones_go_before_it_and_takes_only_its_share_of_a_tick(house: House) -> None:
    provider, names = Provider(house, takes=2), _names()
    large, small = (revoke(house, account_scope()) for _ in range(2))
    rows = [_withdrawal(next(names), large, due_at=NOW - SECOND) for _ in range(10)]
    provider.owe(*rows, *(_withdrawal(next(names), small) for _ in range(2)))
    assert provider.asker.due() == [small, large]
    provider.asker.advance(large)
    assert len(provider.asked) == 3


def test_what_came_late_goes_before_what_has_long_been_due(house: House) -> None:
    provider, names = Provider(house), _names()
    large = revoke(house, account_scope())
    provider.owe(*(_withdrawal(next(names), large) for _ in range(3)), _withdrawal(next(names), None))
    provider.asker.advance(large)
    assert provider.asker.due() == [large], "it is of this one as well, and named once"
