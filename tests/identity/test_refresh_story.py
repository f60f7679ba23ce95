"""What an operator is told of the latest refresh."""

from __future__ import annotations

import pytest

from identity.errors import ReauthRequired
from identity.http.client import Client
from identity.refresh.coordinator import Coordinator
from identity.refresh.intents import IntentState
from identity.refresh.story import RefreshStory, latest_refresh
from identity.token_endpoint.budget import RefreshBudget
from tests.identity.coordinators import MakeCoordinator
from tests.identity.providers import PretendProvider, reply
from tests.identity.world import World


@pytest.fixture
def coordinator(connected: World, http: Client) -> Coordinator:
    return MakeCoordinator(connected, http)(budget=RefreshBudget())


def told(world: World, account: str) -> RefreshStory:
    story = world.store.read(lambda connection: latest_refresh(connection, account))
    assert story is not None
    return story


def test_an_account_without_a_refresh_has_no_story(connected: World) -> None:
    account = connected.consent()
    assert connected.store.read(lambda connection: latest_refresh(connection, account)) is None


def test_a_lost_answer_says_which_when_why_and_what_to_do(
    connected: World, coordinator: Coordinator, provider: PretendProvider
) -> None:
    account = connected.consent()
    provider.answer = lambda form: None
    with pytest.raises(ReauthRequired):
        coordinator.refresh(account, after_generation=1)
    story = told(connected, account)
    assert (story.state, story.generation, story.presented) == (IntentState.UNKNOWN, 1, 1)
    assert story.started_at == connected.clock.now
    assert story.why is not None
    assert "127.0.0.1" in story.why
    assert story.next is not None
    assert "connect the account again" in story.next
    connected.consent()
    assert told(connected, account).next is None  # a new consent has overtaken it


def test_death_asks_for_a_person_until_one_came(
    connected: World, coordinator: Coordinator, provider: PretendProvider
) -> None:
    account = connected.consent()
    provider.answer = lambda form: reply({"error": "bad_refresh_token"})
    with pytest.raises(ReauthRequired):
        coordinator.refresh(account, after_generation=1)
    story = told(connected, account)
    assert (story.state, story.why) == (IntentState.DEAD, "bad_refresh_token")
    assert story.next is not None
    connected.consent()
    assert told(connected, account).next is None


def test_a_refresh_that_went_well_asks_for_nothing(connected: World, coordinator: Coordinator) -> None:
    account = connected.consent()
    assert coordinator.refresh(account, after_generation=1) == 2
    assert (told(connected, account).state, told(connected, account).next) == (IntentState.COMMITTED, None)
