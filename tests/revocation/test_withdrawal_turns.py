"""Which withdrawal has its turn: a revocation may have very many, and a provider takes only so many an hour."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest
from sqlalchemy import insert, update

from identity.audit import Act
from identity.hold import release_hold, set_hold
from identity.model import Credential
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawal import Origin, WithdrawalState, settle
from identity.withdrawals.withdrawer import WithdrawalTurn
from pipeline.desk.revocations import retry
from pipeline.duties.reconcile import advance_withdrawals
from pipeline.revocation.declaration import load
from pipeline.revocation.tables import revocations
from pipeline.revoker.provider_side import ProviderAsker, provider_side
from pipeline.revoker.revoker import Revoker
from tests.killed import Killed, killed_at
from tests.ledger.acts import SIGNER, revoke
from tests.ledger.house import House, account_scope
from tests.ledger.plans import statements_of
from tests.ledger.revokers import quiet_revoker

NOW = datetime.now(UTC)
SECOND = timedelta(seconds=1)
MANY = 1100  # more than are looked at together


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
    """Lets itself be asked about everything, unless it has no room for some, and ends what it is told to."""

    def __init__(self, house: House, *, takes: float = 0) -> None:
        self.house, self.takes = house, takes
        self.asked: list[str] = []
        self.no_room: set[str] = set()
        self.ends: set[str] = set()
        self.seconds = 0.0
        self.asker = ProviderAsker(house.database, self._ask, clock=lambda: NOW, monotonic=lambda: self.seconds)

    def _ask(self, withdrawal: str, _others: Sequence[str]) -> WithdrawalTurn:
        self.asked.append(withdrawal)
        self.seconds += self.takes
        if withdrawal in self.ends:
            self.house.database.write(lambda c: settle(c, withdrawal, to=WithdrawalState.DONE, reason=None, now=NOW))
        return WithdrawalTurn(room=withdrawal not in self.no_room)

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


@pytest.mark.parametrize("dropped_has_room", [False, True])
def test_what_renews_a_token_that_a_signal_dropped_stands_in_the_line_of_what_renews(
    house: House, dropped_has_room: bool
) -> None:
    """And not in that of access tokens: a full endpoint of one holds up nothing of the other."""
    provider, made = Provider(house), revoke(house, account_scope())
    dropped = _withdrawal("wit-dropped", made, access_sealed=None, expires_at=None, due_at=NOW - SECOND)
    expired = _withdrawal("wit-expired", made, expires_at=NOW - SECOND, due_at=NOW - SECOND / 2)
    provider.owe(dropped, expired, _withdrawal("wit-living", made))
    provider.no_room = set() if dropped_has_room else {"wit-dropped"}
    provider.asker.advance(made)
    asked = [one for one in provider.asked if one.startswith("wit")]
    assert ("wit-living" in asked, "wit-expired" in asked) == (True, dropped_has_room)


def test_what_has_been_due_for_longest_is_asked_about_first(house: House) -> None:
    provider, made = Provider(house), revoke(house, account_scope())
    provider.owe(*(_withdrawal(f"wit-{place}", made, due_at=NOW - place * SECOND) for place in range(1, 4)))
    provider.asker.advance(made)
    assert provider.asked[:3] == ["wit-3", "wit-2", "wit-1"]


def test_while_it_is_held_none_is_looked_at_under_its_accounts_lock(house: House) -> None:
    provider, made = Provider(house), revoke(house, account_scope())
    provider.owe(_withdrawal("wit-1", made))
    act = Act(audit_id=house.ids("aud"), by="test", now=NOW, why="a drill")
    house.database.write(partial(set_hold, act=act))
    assert not provider.asker.advance(made)
    provider.asker.ask_leftovers()
    assert provider.asked == []
    house.database.write(partial(release_hold, act=replace(act, audit_id=house.ids("aud"))))
    provider.asker.advance(made)
    assert "wit-1" in provider.asked


def test_a_large_revocation_lets_the_small_ones_go_before_it_and_takes_only_its_share_of_a_tick(house: House) -> None:
    provider, names = Provider(house, takes=2), _names()
    large, small = (revoke(house, account_scope()) for _ in range(2))
    rows = [_withdrawal(next(names), large, due_at=NOW - SECOND) for _ in range(10)]
    few = [_withdrawal(next(names), small) for _ in range(2)]
    provider.owe(*rows, *few)
    assert provider.asker.due() == [small, large]
    provider.asker.advance(large)
    assert len(provider.asked) == 3
    provider.asked.clear()
    revoker = quiet_revoker(house.database, SIGNER, provider_side=provider_side, withdraw=provider.asker.advance)
    advance_withdrawals(revoker, provider.asker.due, monotonic=lambda: provider.seconds)
    assert {row["id"] for row in few} <= set(provider.asked[:4]), "in the same tick, and first"


def test_many_small_revocations_that_stay_due_hide_no_large_one(house: House) -> None:
    """As where their provider has no room for them, and another asks for the large one's."""
    provider, names = Provider(house), _names()
    small = [f"rev-{place:03}" for place in range(101)]
    provider.owe(*(_withdrawal(next(names), "rev-large", due_at=NOW - SECOND) for _ in range(2)))
    provider.owe(*(_withdrawal(next(names), one) for one in small))
    due = provider.asker.due()
    assert due[0] in small
    assert "rev-large" in due
    assert len(due) == 100


def test_what_came_late_goes_before_what_has_long_been_due(house: House) -> None:
    provider, names = Provider(house), _names()
    large = revoke(house, account_scope())
    provider.owe(*(_withdrawal(next(names), large) for _ in range(3)), _withdrawal(next(names), None))
    provider.asker.advance(large)
    assert provider.asker.due() == [large], "it is of this one as well, and named once"


def test_a_long_receipt_is_not_issued_anew_after_each_answer_but_with_the_last_and_when_it_is_looked_at(
    house: House,
) -> None:
    provider, names = Provider(house), _names()
    revoker = quiet_revoker(house.database, SIGNER, provider_side=provider_side, withdraw=provider.asker.advance)
    made = revoke(house, account_scope())
    owed = [next(names) for _ in range(3)]
    provider.owe(*(_withdrawal(id, made) for id in owed))
    provider.ends = {"acc-acme.ada.1"}  # the account's own
    assert revoker.advance(made)
    assert _told(house, made) == (1, "pending", 1)

    tick = partial(advance_withdrawals, revoker, provider.asker.due)
    provider.ends.add(owed[0])
    said = [statement for statement, _ in statements_of(tick)]
    assert _told(house, made) == (1, "pending", 1)
    assert not [statement for statement in said if "revocations.receipt" in statement]
    long_ago = update(revocations).values(moved_at=datetime.now(UTC) - timedelta(hours=1))
    house.database.write(lambda c: c.execute(long_ago).rowcount)
    assert revoker.unfinished(idle_seconds=5) == [made]
    assert revoker.advance(made)
    assert _told(house, made) == (2, "pending", 2)

    provider.ends.update(owed)
    tick()
    assert _told(house, made) == (3, "done", 4)


def test_a_receipt_that_does_not_know_yet_of_what_came_late_is_issued_anew_at_once(house: House) -> None:
    provider, revoker, made = _stuck(house)
    provider.owe(_withdrawal("late", None))
    advance_withdrawals(revoker, provider.asker.due)
    assert _told(house, made) == (2, "pending", 1)


def _retried(house: House, made: str) -> None:
    act = Act(audit_id=house.ids("aud"), by="test", now=NOW)
    assert house.database.write(partial(retry, id=made, act=act)) == 1


def _came_late(house: House, made: str) -> None:
    house.database.write(lambda c: c.execute(insert(withdrawals).values(_withdrawal("wit-late", None))).rowcount)


@pytest.mark.parametrize("comes", [_retried, _came_late])
def test_what_ends_in_a_process_that_dies_before_it_tells_is_told_by_another(
    house: House, comes: Callable[[House, str], None]
) -> None:
    provider, revoker, made = _stuck(house)
    comes(house, made)
    provider.ends |= {"wit", "wit-late"}

    die, withdraw = killed_at("before_receipt"), provider.asker.advance
    dying = quiet_revoker(house.database, SIGNER, provider_side=provider_side, withdraw=withdraw, reached=die)
    with pytest.raises(Killed):
        dying.advance(made)
    assert provider.asker.due() == []
    long_ago = update(revocations).values(moved_at=datetime.now(UTC) - timedelta(hours=1))
    house.database.write(lambda c: c.execute(long_ago).rowcount)
    assert revoker.unfinished(idle_seconds=5) == [made]
    assert revoker.advance(made)
    assert _told(house, made)[0] == 2
    assert revoker.unfinished(idle_seconds=5) == []


def _stuck(house: House) -> tuple[Provider, Revoker, str]:
    """A revocation whose receipt says that one credential has ended, and another is stuck."""
    provider = Provider(house)
    revoker = quiet_revoker(house.database, SIGNER, provider_side=provider_side, withdraw=provider.asker.advance)
    made = revoke(house, account_scope())
    provider.owe(_withdrawal("wit", made, state="stuck"))
    provider.ends = {"acc-acme.ada.1"}
    assert revoker.advance(made)
    assert _told(house, made) == (1, "stuck", 1)
    return provider, revoker, made


def _told(house: House, made: str) -> tuple[int, str, int]:
    """The receipt's revision, what it says of the provider, and how many credentials have ended."""
    row = house.database.read(partial(load, revocation=made))
    told = row.receipt["provider"]
    return row.revision, told["answer"], sum(one["answer"] == "done" for one in told["accounts"])
