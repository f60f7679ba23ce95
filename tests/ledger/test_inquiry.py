"""A signal that may be a replay: followed first, asked about afterwards, and told on the receipt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import insert, update

from identity.audit import Act
from identity.connections.registry import get_connection
from identity.connections.secrets import CLIENT_SECRET, add_secret, seal_secret
from identity.hold import release_hold, set_hold
from identity.http.client import Client
from identity.keys.signing import Signer
from identity.providers import PROFILES
from identity.secret import Secret
from identity.tables import grants, provider_connections
from pipeline.revocation import declaration
from pipeline.revocation.tables import revocations
from pipeline.revoker.inquiry import SAYS, Inquirer, SignalDoubt, open_doubts
from pipeline.signal import Asks, People, Signal
from tests.identity.providers import PretendProvider, pretend_provider
from tests.ledger.house import House
from tests.ledger.revokers import quiet_revoker
from tests.ledger.rows import revocations_of_one_moment
from tests.ledger.signals import say

SIGNER = Signer.from_seed(b"s" * 32)
GONE = Signal(source="github", asks=Asks.REVOKE, whom=(People(ids=frozenset({"1001"})),), reason="revoked")


@pytest.fixture
def provider(house: House) -> Iterator[PretendProvider]:
    """GitHub as the house's connection knows it."""
    with pretend_provider() as github:

        def move(c: Any) -> None:
            c.execute(update(provider_connections).values(api_url=github.url))
            owner, now = get_connection(c, "gh"), datetime.now(UTC)
            add_secret(
                c, seal_secret(house.vault, owner, id="s", name=CLIENT_SECRET, secret=Secret("client-secret"), now=now)
            )

        house.database.write(move)
        yield github


class Asking:
    def __init__(self, house: House, http: Client) -> None:
        self.house = house
        self.now = datetime.now(UTC)
        inquirer = Inquirer(house.database, house.vault, http, PROFILES, clock=lambda: self.now)
        self.revoker = quiet_revoker(house.database, SIGNER, inquire=inquirer.settle)

    def again(self) -> str:
        """Revoked, reconnected, revoked by the same bytes: the second revocation."""
        say(self.house, GONE)
        self.house.connect("acme", "acme.ada")
        (made,) = say(self.house, GONE, seen=True).revocations
        return made

    def row(self, made: str) -> Any:
        return self.house.database.read(partial(declaration.load, revocation=made))


@pytest.fixture
def asking(house: House, http: Client) -> Asking:
    return Asking(house, http)


@pytest.mark.parametrize(("alive", "verdict"), [(True, SignalDoubt.ALIVE), (False, SignalDoubt.DEAD)])
def test_the_receipt_says_whether_the_provider_still_takes_the_token(
    asking: Asking, provider: PretendProvider, alive: bool, verdict: SignalDoubt
) -> None:
    provider.alive = alive
    made = asking.again()
    assert asking.revoker.advance(made)
    row = asking.row(made)
    assert (row.doubt, row.receipt["doubt"]) == (verdict, verdict)
    assert SIGNER.verifies(row.receipt, row.signature)
    ((headers, body),) = provider.checked
    assert json.loads(body) == {"access_token": "token-acme.ada-2"}
    assert headers["x-aswhom-revocation"] == made
    assert headers["authorization"].startswith("Basic ")
    assert "replayed signal" in SAYS[SignalDoubt.ALIVE]
    assert asking.revoker.advance(made)
    assert len(provider.checked) == 1


def test_what_leaves_no_doubt_asks_nobody(asking: Asking, provider: PretendProvider, house: House) -> None:
    (made,) = say(house, GONE).revocations
    assert asking.revoker.advance(made)
    assert asking.row(made).receipt["doubt"] is None
    house.connect("acme", "acme.ada")
    (timed,) = say(house, replace(GONE, happened_at=datetime.now(UTC)), seen=True).revocations
    assert asking.revoker.advance(timed)
    assert provider.checked == []


def test_a_provider_that_is_away_is_asked_again_and_not_for_ever(asking: Asking, provider: PretendProvider) -> None:
    provider.alive = None
    made = asking.again()
    assert not asking.revoker.advance(made)
    assert asking.row(made).receipt is None
    asking.now += timedelta(minutes=3)
    assert asking.revoker.advance(made)
    assert asking.row(made).doubt == SignalDoubt.UNKNOWN


def test_while_it_is_held_a_signal_that_may_be_a_replay_is_not_asked_about(
    asking: Asking, provider: PretendProvider, house: House
) -> None:
    made = asking.again()
    back = update(revocations).where(revocations.c.id == made).values(moved_at=asking.now - timedelta(minutes=1))
    house.database.write(lambda c: c.execute(back).rowcount)
    assert made in asking.revoker.unfinished(idle_seconds=5)
    act = Act(audit_id="hold", by="test", now=asking.now, why="a drill")
    house.database.write(partial(set_hold, act=act))
    asking.now += timedelta(minutes=3)
    assert not asking.revoker.advance(made)
    assert asking.row(made).doubt == SignalDoubt.OPEN
    assert made not in asking.revoker.unfinished(idle_seconds=5), "others have their turn before it"
    assert provider.checked == []
    house.database.write(partial(release_hold, act=replace(act, audit_id="release")))
    assert asking.revoker.advance(made)
    assert asking.row(made).doubt == SignalDoubt.ALIVE


def test_after_a_hold_a_provider_that_is_away_is_asked_for_as_long_as_ever(
    asking: Asking, provider: PretendProvider, house: House
) -> None:
    provider.alive = None
    made = asking.again()
    act = Act(audit_id="hold", by="test", now=asking.now, why="a drill")
    house.database.write(partial(set_hold, act=act))
    asking.now += timedelta(minutes=10)
    house.database.write(partial(release_hold, act=replace(act, audit_id="release", now=asking.now)))
    asking.now += timedelta(minutes=1)
    assert not asking.revoker.advance(made)
    assert asking.row(made).doubt == SignalDoubt.OPEN
    asking.now += timedelta(minutes=2)
    assert asking.revoker.advance(made)
    assert asking.row(made).doubt == SignalDoubt.UNKNOWN


def test_a_token_that_says_nothing_of_the_signal_is_not_asked_about(
    asking: Asking, provider: PretendProvider, house: House
) -> None:
    reconnected = asking.again()
    house.connect("acme", "acme.ada")
    assert asking.revoker.advance(reconnected)
    (expired,) = say(house, GONE, seen=True).revocations
    house.database.write(lambda c: c.execute(update(grants).values(expires_at=asking.now)).rowcount)
    assert asking.revoker.advance(expired)
    assert {asking.row(made).doubt for made in (reconnected, expired)} == {SignalDoubt.UNKNOWN}
    assert provider.checked == []


def test_doubts_are_listed_in_the_order_in_which_their_revocations_took_effect(house: House) -> None:
    made = revocations_of_one_moment(datetime.now(UTC), state="draining", doubt=SignalDoubt.OPEN)
    house.database.write(lambda c: c.execute(insert(revocations), made))
    assert house.database.read(open_doubts) == [one["id"] for one in made]
