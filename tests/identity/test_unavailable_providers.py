"""A provider that is down, busy or out of reach: what still lives is served, and it is left alone for a while."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from identity.errors import Unavailable
from identity.http.client import Client
from identity.model import AccountState, Credential
from tests.identity.coordinators import MakeCoordinator, intents
from tests.identity.providers import PretendProvider, reply
from tests.identity.world import ROBOT, START, World


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_transient_answer_serves_what_still_lives(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider, status: int
) -> None:
    account = connected.consent(lifetime=timedelta(minutes=1))
    provider.answer = lambda form: reply({"error": "invalid_grant"}, status, retry_after="30")
    assert make_coordinator().refresh(account, after_generation=1) == 1
    assert make_coordinator().refresh(account, after_generation=1) == 1
    assert provider.presented.total() == 1  # the second one waits for the provider's retry-after
    connected.clock.advance(timedelta(minutes=2))
    for _ in range(2):  # the second is not sent, and knows what was said to the first
        with pytest.raises(Unavailable, match=f"gives account {account} no token now .*{status}"):
            make_coordinator().refresh(account, after_generation=1)
    provider.answer = provider.rotate
    connected.clock.advance(timedelta(minutes=1))
    assert make_coordinator().refresh(account, after_generation=1) == 2
    assert connected.state() is AccountState.ACTIVE


def test_a_token_refused_upstream_is_not_served_again(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()
    provider.answer = lambda form: reply({}, 503, retry_after="30")
    with pytest.raises(Unavailable) as error:
        make_coordinator().refresh(account, after_generation=1, refused=True)
    assert error.value.retry_after == timedelta(seconds=30)


def test_a_provider_that_cannot_be_reached_is_transient_and_uncounted(store: Any, http: Client) -> None:
    world = World(store=store, url="http://127.0.0.1:9").build()
    account = world.consent(lifetime=timedelta(minutes=1))
    assert MakeCoordinator(world, http)().refresh(account, after_generation=1) == 1
    (intent,) = intents(world)
    assert (intent.state, intent.presented) == ("failed", 0)


@pytest.mark.parametrize(
    ("status", "says", "seconds"),
    [
        (429, {"retry-after": "90"}, 90),
        (429, {}, 30),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(START.timestamp()) + 600)}, 600),
    ],
)
def test_a_pause_that_one_grant_was_told_of_holds_every_grant_of_the_connection(
    connected: World,
    make_coordinator: MakeCoordinator,
    provider: PretendProvider,
    status: int,
    says: dict[str, str],
    seconds: int,
) -> None:
    account = connected.consent(lifetime=timedelta(minutes=1))
    robot = connected.service(Credential.CLIENT_CREDENTIALS)
    coordinator = make_coordinator()
    provider.answer = lambda form: (status, says, b"{}")
    assert coordinator.refresh(account, after_generation=1) == 1
    with pytest.raises(Unavailable) as error:
        coordinator.refresh(robot, after_generation=1)
    assert error.value.retry_after == timedelta(seconds=seconds)
    assert provider.presented.total() == 1


def test_an_endpoint_that_is_down_is_left_alone_after_five_failures(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()
    coordinator = make_coordinator()
    provider.answer = lambda form: reply({}, 500)
    for _ in range(5):
        assert coordinator.refresh(account, after_generation=1) == 1
        connected.clock.advance(timedelta(seconds=6))  # past the wait of this one grant
    assert provider.presented.total() == 5
    connected.service(Credential.CLIENT_CREDENTIALS)
    with pytest.raises(Unavailable):
        coordinator.refresh(connected.account(ROBOT).id, after_generation=1)
    assert provider.presented.total() == 5
    connected.clock.advance(timedelta(seconds=10))
    provider.answer = provider.rotate
    assert coordinator.refresh(account, after_generation=1) == 2
