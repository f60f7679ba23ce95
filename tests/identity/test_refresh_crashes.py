"""A process dies in the middle of a refresh, at each point at which it can."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from identity.errors import ReauthRequired
from identity.model import AccountState
from identity.refresh.situation import read_situation
from identity.refresh.tables import refresh_intents
from identity.secret import Secret
from tests.identity.coordinators import ABANDONED_AFTER, Killed, MakeCoordinator
from tests.identity.providers import PretendProvider
from tests.identity.world import ANNA, ROBOT, World


@pytest.mark.parametrize("point", ["before_send", "after_send"])
def test_a_crash_without_a_stored_answer_needs_a_person_and_never_presents_again(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider, point: str
) -> None:
    account = connected.consent()
    with pytest.raises(Killed):
        make_coordinator(die_at=point).refresh(account, after_generation=1)
    connected.clock.advance(ABANDONED_AFTER)
    assert make_coordinator().settle_abandoned() == 1
    assert connected.state() is AccountState.NEEDS_RECONNECT
    with pytest.raises(ReauthRequired):
        make_coordinator().refresh(account, after_generation=1)
    assert provider.presented.total() == (0 if point == "before_send" else 1)
    assert make_coordinator().settle_abandoned() == 0


def test_a_crash_after_the_answer_was_stored_is_recovered(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()
    with pytest.raises(Killed):
        make_coordinator(die_at="after_answer_stored").refresh(account, after_generation=1)
    assert connected.generation() == 1
    assert make_coordinator().refresh(account, after_generation=1) == 2
    assert provider.presented == {"refresh-0": 1}
    assert connected.token() == "access-1"


def test_housekeeping_recovers_a_stored_answer(connected: World, make_coordinator: MakeCoordinator) -> None:
    connected.consent()
    with pytest.raises(Killed):
        make_coordinator(die_at="after_answer_stored").refresh(connected.account().id, after_generation=1)
    assert make_coordinator().settle_abandoned() == 0  # not yet due
    connected.clock.advance(ABANDONED_AFTER)
    assert make_coordinator().settle_abandoned() == 1
    assert (connected.generation(), connected.state()) == (2, AccountState.ACTIVE)


def test_an_answer_that_nobody_can_read_holds_up_no_other_account(
    connected: World, make_coordinator: MakeCoordinator
) -> None:
    for key in (ANNA, ROBOT):
        account = connected.consent(key)
        with pytest.raises(Killed):
            make_coordinator(die_at="after_answer_stored").refresh(account, after_generation=1)
        connected.clock.advance(timedelta(seconds=1))
    anna = connected.store.read(lambda c: read_situation(c, connected.account(ANNA).id))
    unread = connected.vault.seal(Secret("no answer"), anna.answer_binding)
    of_anna = update(refresh_intents).where(refresh_intents.c.account_id == anna.account.id)
    connected.store.write(lambda c: c.execute(of_anna.values(answer_sealed=unread)).rowcount)
    connected.clock.advance(ABANDONED_AFTER)
    for _ in range(2):
        with pytest.raises(ExceptionGroup) as told:
            make_coordinator().settle_abandoned(page=1)
        assert told.value.exceptions[0].__notes__ == [f"account {anna.account.id}"]
        assert (connected.generation(ANNA), connected.generation(ROBOT)) == (1, 2)


def test_a_crash_after_the_commit_loses_nothing(connected: World, make_coordinator: MakeCoordinator) -> None:
    account = connected.consent()
    with pytest.raises(Killed):
        make_coordinator(die_at="after_commit").refresh(account, after_generation=1)
    assert make_coordinator().refresh(account, after_generation=1) == 2
