"""An answer that comes after its refresh was given up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import update

from identity.http.client import Answer
from identity.model import AccountKey, AccountState
from identity.providers import PROFILES
from identity.refresh.intents import store_answer
from identity.refresh.situation import read_situation
from identity.tables import accounts
from identity.token_endpoint.endpoint import pack
from tests.identity.coordinators import ABANDONED_AFTER, Killed, MakeCoordinator, intents
from tests.identity.providers import PretendProvider, Reply, reply
from tests.identity.stores import OvertakenStore
from tests.identity.world import ANNA, World

Answers = Callable[[dict[str, str]], Reply | None]


def _given_up_meanwhile(world: World, make_coordinator: MakeCoordinator, answer: Answers) -> Answers:
    """*answer*, once its refresh was taken for abandoned."""

    def late(form: dict[str, str]) -> Reply | None:
        world.clock.advance(ABANDONED_AFTER)
        assert make_coordinator().settle_abandoned() == 1
        assert world.state() is AccountState.NEEDS_RECONNECT
        reworded = update(accounts).values(reason="in the words of another version")
        world.store.write(lambda c: c.execute(reworded).rowcount)
        return answer(form)

    return late


def test_a_late_answer_brings_back_an_account_that_was_given_up(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()
    provider.answer = _given_up_meanwhile(connected, make_coordinator, provider.rotate)
    woken: list[AccountKey] = []
    assert (
        make_coordinator(restored=lambda connection, key: woken.append(key)).refresh(account, after_generation=1) == 2
    )
    assert connected.state() is AccountState.ACTIVE
    assert connected.token() == "access-1"
    assert woken == [ANNA]


def test_a_late_answer_without_effect_brings_it_back_too(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()
    provider.answer = _given_up_meanwhile(connected, make_coordinator, lambda form: reply({}, 503))
    woken: list[AccountKey] = []
    assert (
        make_coordinator(restored=lambda connection, key: woken.append(key)).refresh(account, after_generation=1) == 1
    )
    assert (connected.state(), woken) == (AccountState.ACTIVE, [ANNA])


@pytest.mark.parametrize(
    ("ledger_url", "within"),
    [("sqlite", False), ("postgresql", False), ("postgresql", True)],  # on SQLite one of two writers waits
    ids=["sqlite-before", "postgresql-before", "postgresql-within"],
    indirect=["ledger_url"],
)
@pytest.mark.parametrize("looked", [False, True], ids=["for the first time", "again"])
def test_an_answer_that_is_stored_while_its_refresh_is_being_given_up_is_not_lost(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider, within: bool, looked: bool
) -> None:
    """Its owner stood still for so long that somebody takes it for gone, and wakes as that is being written down."""
    graceful = replace(PROFILES["github"], grace_seconds=90) if looked else None
    account = connected.consent()
    with pytest.raises(Killed):
        make_coordinator(die_at="after_send", profile=graceful).refresh(account, after_generation=1)
    connected.clock.advance(ABANDONED_AFTER)
    if looked:  # it is in doubt by now
        assert make_coordinator(profile=graceful).settle_abandoned() == 1
        connected.clock.advance(timedelta(minutes=1))
    (intent,) = intents(connected)
    body = b'{"access_token": "late", "refresh_token": "later", "token_type": "bearer", "expires_in": 3600}'
    packed = pack(Answer(status=200, headers={}, body=body, elapsed=timedelta(seconds=1)))
    situation = connected.store.read(lambda c: read_situation(c, account))
    sealed = connected.vault.seal(packed, situation.answer_binding)

    def wake() -> None:
        assert connected.store.write(lambda c: store_answer(c, intent.id, sealed))

    overtaken = make_coordinator(profile=graceful, store=OvertakenStore(connected.store, wake, within=within))
    if looked:
        assert overtaken.refresh(account, after_generation=1) == 2
    else:
        assert overtaken.settle_abandoned() == 1
        assert make_coordinator().settle_abandoned() == 1
    assert (connected.generation(), connected.state()) == (2, AccountState.ACTIVE)
    assert connected.token() == "late"
    assert provider.presented == {"refresh-0": 1}
