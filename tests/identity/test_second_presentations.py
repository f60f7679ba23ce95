"""An answer was lost: whether the same refresh token may be presented once more, and until when."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import update

from identity.errors import ReauthRequired
from identity.model import AccountState
from identity.providers import PROFILES
from identity.tables import provider_connections
from identity.token_endpoint.budget import RefreshBudget
from tests.identity.coordinators import BUDGET, Killed, MakeCoordinator, intents
from tests.identity.providers import PretendProvider, Reply, reply
from tests.identity.world import World


def test_a_lost_answer_is_unknown_and_asks_for_a_person(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()
    provider.answer = lambda form: None
    with pytest.raises(ReauthRequired):
        make_coordinator().refresh(account, after_generation=1)
    assert connected.state() is AccountState.NEEDS_RECONNECT
    assert provider.presented == {"refresh-0": 1}
    assert connected.audited("grant.unknown") == 1


@pytest.mark.parametrize("said_by", ["row", "operator"])
def test_a_verified_grace_window_allows_one_more_presentation(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider, said_by: str
) -> None:
    graceful = replace(PROFILES["github"], grace_seconds=60)
    if said_by == "operator":
        graceful = replace(PROFILES["github"], name="oauth2")  # a server of one's own, else like GitHub's
        said = update(provider_connections).values(config={"grace_seconds": "60"})
        connected.store.write(lambda c: c.execute(said).rowcount)
    account = connected.consent()
    provider.answer = lambda form: provider.rotate(form) if provider.presented.total() > 1 else None
    assert make_coordinator(profile=graceful).refresh(account, after_generation=1) == 2
    assert provider.presented == {"refresh-0": 2}
    (intent,) = intents(connected)
    assert (intent.state, intent.presented) == ("committed", 2)


def test_a_grace_window_allows_no_third_presentation(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    graceful = replace(PROFILES["github"], grace_seconds=60)
    account = connected.consent()
    provider.answer = lambda form: None
    with pytest.raises(ReauthRequired):
        make_coordinator(profile=graceful).refresh(account, after_generation=1)
    assert provider.presented == {"refresh-0": 2}
    assert connected.state() is AccountState.NEEDS_RECONNECT


@pytest.mark.parametrize(("window", "presented"), [(60, 2), (30, 1)])
def test_after_a_crash_it_is_presented_again_inside_a_window_that_outlasts_the_wait_for_the_crashed_one(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider, window: int, presented: int
) -> None:
    """Whoever crashed might still be sending: until `settled_by` nobody can know, and the next may take `send`."""
    graceful, budget = replace(PROFILES["github"], grace_seconds=window), RefreshBudget()
    account = connected.consent()
    with pytest.raises(Killed):
        make_coordinator(profile=graceful, die_at="after_send", budget=budget).refresh(account, after_generation=1)
    (intent,) = intents(connected)
    assert intent.settled_by == connected.clock.now + budget.send + budget.http
    connected.clock.advance(timedelta(seconds=26))
    again = make_coordinator(profile=graceful, budget=budget)
    if presented == 2:
        assert again.refresh(account, after_generation=1) == 2
    else:
        with pytest.raises(ReauthRequired):
            again.refresh(account, after_generation=1)
    assert provider.presented == {"refresh-0": presented}


@pytest.mark.parametrize("second", ["busy", "unreachable"])
def test_a_second_presentation_without_effect_leaves_the_first_one_in_doubt(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider, second: str
) -> None:
    """Else the token would be shown a third time, long after the provider takes that for theft."""
    graceful = replace(PROFILES["github"], grace_seconds=60)
    account = connected.consent(lifetime=timedelta(minutes=1))

    def lose_the_first(form: dict[str, str]) -> Reply | None:
        if provider.presented.total() > 1:
            return reply({}, 503)
        if second == "unreachable":
            gone = update(provider_connections).values(token_url="http://127.0.0.1:1/token")
            connected.store.write(lambda c: c.execute(gone).rowcount)
        return None

    provider.answer = lose_the_first
    assert make_coordinator(profile=graceful).refresh(account, after_generation=1) == 1  # its token still lives
    connected.clock.advance(timedelta(minutes=2))
    with pytest.raises(ReauthRequired, match="no known outcome"):
        make_coordinator(profile=graceful).refresh(account, after_generation=1)
    assert provider.presented == {"refresh-0": 2 if second == "busy" else 1}
    (intent,) = intents(connected)
    assert (intent.state, intent.presented) == ("unknown", provider.presented.total())
    assert connected.state() is AccountState.NEEDS_RECONNECT


def test_a_second_presentation_leaves_no_later_than_its_window_ends(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    graceful = replace(PROFILES["github"], grace_seconds=120)
    account = connected.consent(lifetime=timedelta(minutes=5))
    with pytest.raises(Killed):
        make_coordinator(profile=graceful, die_at="after_send").refresh(account, after_generation=1)
    # Of the time in which it may leave, one second is too late.
    connected.clock.advance(timedelta(seconds=121) - BUDGET.send)
    with pytest.raises(ReauthRequired):
        make_coordinator(profile=graceful).refresh(account, after_generation=1)
    assert provider.presented == {"refresh-0": 1}
