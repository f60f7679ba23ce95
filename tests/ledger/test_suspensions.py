"""Suspensions of an installation and their ends, told in whatever order: the provider's own order counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import permutations

import pytest
from sqlalchemy import select, update

from identity.accounts.states import find_account
from identity.model import AccountKey, AccountState, Credential
from identity.tables import accounts
from pipeline.signal import Asks, Installation, Signal
from tests.ledger.house import House
from tests.ledger.signals import say, signal

ROBOT = AccountKey(tenant="acme", connection="gh", principal="acme.service")
WHERE = Installation(id="9001")
OF_ROBOT = accounts.c.principal_id == ROBOT.principal
MINUTE = timedelta(minutes=1)


@pytest.fixture
def installed(house: House) -> House:
    """The house, whose service acts by an installation."""

    def name(external_id: str) -> None:
        house.database.write(
            lambda c: c.execute(update(accounts).where(OF_ROBOT).values(external_id=external_id)).rowcount
        )

    name("1001")  # as whom the house connects everyone
    house.connect("acme", "acme.service", credential=Credential.INSTALLATION)
    name("9001")
    return house


def put(house: House, state: AccountState) -> None:
    """As if nothing had been said of it."""
    anew = update(accounts).where(OF_ROBOT).values(state=state, suspension_said_at=None)
    house.database.write(lambda c: c.execute(anew).rowcount)


def state(house: House) -> AccountState:
    account = house.database.read(partial(find_account, key=ROBOT))
    assert account is not None
    return account.state


def history(began: datetime, words: int, *, last: Asks) -> list[Signal]:
    """Suspensions and their ends by turns, a minute apart."""
    other = {Asks.SUSPEND: Asks.RESUME, Asks.RESUME: Asks.SUSPEND}
    asks = [last]
    while len(asks) < words:
        asks.insert(0, other[asks[0]])
    return [signal(one, WHERE, at=began + nth * MINUTE) for nth, one in enumerate(asks)]


@pytest.mark.parametrize("last", [Asks.SUSPEND, Asks.RESUME])
@pytest.mark.parametrize("words", [1, 2, 3, 4])
def test_in_every_order_the_newest_word_decides_and_none_that_is_repeated_moves_it(
    installed: House, words: int, last: Asks
) -> None:
    told = history(datetime.now(UTC) + MINUTE, words, last=last)
    wanted = AccountState.SUSPENDED if last is Asks.SUSPEND else AccountState.ACTIVE
    for order in permutations(told):
        put(installed, AccountState.ACTIVE)
        reasons = [say(installed, one).reason for one in order]
        assert state(installed) is wanted, [
            (one.asks, one.happened_at, why) for one, why in zip(order, reasons, strict=True)
        ]
        for one in order:
            say(installed, one, seen=True)
            assert state(installed) is wanted


def test_in_every_order_a_person_is_still_wanted_and_the_newest_word_is_known(installed: House) -> None:
    """Unsuspending brings back nothing that was dead before."""
    told = history(datetime.now(UTC) + MINUTE, 3, last=Asks.SUSPEND)
    newest = select(accounts.c.suspension_said_at).where(OF_ROBOT)
    for order in permutations(told):
        put(installed, AccountState.NEEDS_RECONNECT)
        for one in order:
            say(installed, one)
        assert state(installed) is AccountState.NEEDS_RECONNECT
        assert installed.database.read(lambda c: c.execute(newest).scalar_one()) == told[-1].happened_at
