"""A refresh while the ledger fails at any of its writes: the token is presented once, and nothing is stuck or lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

import pytest
from sqlalchemy import select, update

from identity.errors import Unavailable
from identity.http.client import Client
from identity.model import AccountState, Credential
from identity.providers import PROFILES
from identity.providers.profile import Profile
from identity.refresh.coordinator import Coordinator
from identity.refresh.tables import refresh_intents
from identity.tables import provider_connections
from identity.token_endpoint.budget import RefreshBudget
from identity.token_endpoint.gate import Endpoint, Gate
from tests.identity.coordinators import ABANDONED_AFTER, BUDGET, MakeCoordinator
from tests.identity.providers import PretendProvider
from tests.identity.stores import FailingStore
from tests.identity.world import World

T = TypeVar("T")


def coordinator(
    world: World,
    http: Client,
    faults: dict[int, str],
    *,
    gate: Gate | None = None,
    profiles: Mapping[str, Profile] = PROFILES,
    budget: RefreshBudget = BUDGET,
    reached: Callable[[str], None] = lambda point: None,
) -> Coordinator:
    store = FailingStore(world.store, faults)
    return MakeCoordinator(world, http)(store=store, profiles=profiles, budget=budget, gate=gate, reached=reached)


@pytest.mark.parametrize("how", ["no turn", "commit lost", "commit unseen"])
@pytest.mark.parametrize("where", [1, 2, 3, 4, (1, 2), (2, 3), (3, 4), (2, 3, 4)], ids=str)
def test_one_refresh_survives_failing_writes(
    connected: World, http: Client, provider: PretendProvider, how: str, where: int | tuple[int, ...]
) -> None:
    account = connected.consent()
    writes = (where,) if isinstance(where, int) else where
    with suppress(Unavailable):  # any other error fails the test
        coordinator(connected, http, dict.fromkeys(writes, how)).refresh(account, after_generation=1)
    connected.clock.advance(timedelta(seconds=3))
    sound = coordinator(connected, http, {})
    assert sound.refresh(account, after_generation=1) == 2
    assert provider.presented == {"refresh-0": 1}
    assert connected.state() is AccountState.ACTIVE
    assert connected.token() == "access-1"
    connected.clock.advance(timedelta(minutes=1))
    assert sound.settle_abandoned() == 0


@pytest.mark.parametrize("how", ["no turn", "commit lost", "commit unseen"])
@pytest.mark.parametrize("why", ["commit unseen", "unreachable", "left alone"])
def test_what_was_certainly_not_sent_is_written_down_so_and_never_taken_for_unknown(
    connected: World, http: Client, provider: PretendProvider, why: str, how: str
) -> None:
    account = connected.consent()
    gate = Gate(None, monotonic=lambda: connected.clock().timestamp())
    endpoint = Endpoint.of(connected.owner, Credential.AUTHORIZATION_CODE)

    def fill(point: str) -> None:
        if why == "left alone" and point == "before_intent":  # others were first at its token endpoint
            gate.pause(endpoint, timedelta(seconds=1))

    def lead_to(url: str) -> None:
        leads = update(provider_connections).values(token_url=f"{url}/token")
        connected.store.write(lambda c: c.execute(leads).rowcount)

    if why == "unreachable":
        lead_to("http://127.0.0.1:1")
    faults = {1: "commit unseen", 2: how} if why == "commit unseen" else {2: how}
    with suppress(Unavailable):  # any other error fails the test
        coordinator(connected, http, faults, gate=gate, reached=fill).refresh(account, after_generation=1)
    lead_to(provider.url)
    connected.clock.advance(ABANDONED_AFTER)
    sound = coordinator(connected, http, {})
    assert sound.settle_abandoned() == 0
    (intent,) = connected.store.read(lambda c: c.execute(select(refresh_intents)).all())
    assert (intent.state, intent.presented) == ("failed", 0)
    assert provider.presented.total() == 0
    assert connected.state() is AccountState.ACTIVE
    assert sound.refresh(account, after_generation=1) == 2


@pytest.mark.parametrize("how", ["no turn", "commit lost", "commit unseen"])
def test_a_repetition_that_was_not_sent_is_taken_back_once_and_the_one_before_it_stays_counted(
    connected: World, http: Client, provider: PretendProvider, how: str
) -> None:
    account = connected.consent()
    graceful = {**PROFILES, "github": replace(PROFILES["github"], grace_seconds=600)}

    def lose(point: str) -> None:
        if point == "after_send":
            raise Unavailable("this process loses the answer")

    with pytest.raises(Unavailable, match="loses the answer"):
        coordinator(connected, http, {}, profiles=graceful, reached=lose).refresh(account, after_generation=1)
    connected.clock.advance(ABANDONED_AFTER)
    away = update(provider_connections).values(token_url="http://127.0.0.1:1/token")
    connected.store.write(lambda c: c.execute(away).rowcount)
    with suppress(Unavailable):  # the first write says that it is unknown, the second that it is repeated
        coordinator(connected, http, {3: how}, profiles=graceful).refresh(account, after_generation=1)
    (intent,) = connected.store.read(lambda c: c.execute(select(refresh_intents)).all())
    assert (intent.state, intent.presented) == ("unknown", 1)
    assert provider.presented == {"refresh-0": 1}


def test_an_answer_that_cannot_be_stored_in_time_is_unknown(
    connected: World, http: Client, provider: PretendProvider
) -> None:
    account = connected.consent()
    hasty = replace(BUDGET, store=timedelta(seconds=1))
    failing = coordinator(connected, http, dict.fromkeys(range(2, 10_000), "no turn"), budget=hasty)
    with pytest.raises(Unavailable, match="could not be stored"):
        failing.refresh(account, after_generation=1)
    connected.clock.advance(ABANDONED_AFTER)
    assert coordinator(connected, http, {}).settle_abandoned() == 1
    assert connected.state() is AccountState.NEEDS_RECONNECT
    assert provider.presented == {"refresh-0": 1}
