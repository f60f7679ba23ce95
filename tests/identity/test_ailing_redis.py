"""Refreshes while Redis hangs, or lets us do a part only: a provider that is well is asked, and once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import redis

from identity.breaker import Breaker
from identity.http.client import Client
from identity.model import Credential
from identity.providers.pace import CAUTIOUS
from identity.refresh.coordinator import Coordinator
from identity.refresh.lock import Held, RefreshLock
from identity.token_endpoint.budget import RefreshBudget
from identity.token_endpoint.gate import Endpoint, Gate
from tests.identity.coordinators import BUDGET, MakeCoordinator
from tests.identity.providers import PretendProvider
from tests.identity.world import World
from tests.servers.valkey import Valkey
from tests.waiting import eventually

SECOND = timedelta(seconds=1)


def coordinator(
    world: World,
    http: Client,
    client: redis.Redis,
    gate: Gate,
    sleep: Callable[[float], None],
    *,
    budget: RefreshBudget = BUDGET,
) -> Coordinator:
    return MakeCoordinator(world, http)(client=client, budget=budget, gate=gate, sleep=sleep)


def never(_seconds: float) -> None:
    raise AssertionError("nothing is waited for")


def test_a_redis_that_hangs_as_long_as_there_is_to_send_stops_no_refresh(
    connected: World, http: Client, provider: PretendProvider, own_valkey: Valkey
) -> None:
    account, where = connected.consent(), Endpoint.of(connected.owner, Credential.AUTHORIZATION_CODE)
    own_valkey.pause()
    short = replace(BUDGET, send=2 * SECOND)
    with redis.Redis.from_url(own_valkey.url, socket_timeout=short.send.total_seconds()) as client:
        gate = Gate(client, breaker=Breaker(threshold=1))
        refreshes = coordinator(connected, http, client, gate, never, budget=short)
        assert refreshes.refresh(account, after_generation=1) == 2
        assert refreshes.refresh(account, after_generation=2) == 3
        assert gate.look(where, CAUTIOUS) is None  # no failure was put down to the provider
    assert provider.presented == {"refresh-0": 1, "refresh-1": 1}


def test_a_lock_at_a_redis_that_failed_asks_it_again_only_after_a_rest(own_valkey: Valkey) -> None:
    now = [0.0]
    own_valkey.pause()
    with redis.Redis.from_url(own_valkey.url, socket_timeout=0.1) as client:
        lock = RefreshLock(client, ttl=SECOND, token=lambda: "me", monotonic=lambda: now[0])
        lock.acquire("one")
        own_valkey.resume()
        assert not isinstance(lock.acquire("two"), Held)
        now[0] = 5.0
        assert isinstance(lock.acquire("two"), Held)


def test_who_waits_for_anothers_refresh_is_woken_by_its_end(
    connected: World, http: Client, provider: PretendProvider, own_valkey: Valkey
) -> None:
    """It neither sleeps nor looks again and again: `never` says so."""
    account = connected.consent()
    with own_valkey.client() as client, ThreadPoolExecutor(1) as pool:
        held = RefreshLock(client, ttl=60 * SECOND, token=lambda: "another").acquire(account)
        assert isinstance(held, Held)
        waits = pool.submit(
            coordinator(connected, http, client, Gate(None), never).refresh, account, after_generation=1
        )
        eventually(lambda: waits.done() or client.pubsub_numsub(held.channel)[0][1] == 1, "it listens for the lock")
        assert provider.presented.total() == 0
        held.release()
        assert waits.result() == 2
    assert provider.presented == {"refresh-0": 1}


def test_who_may_not_listen_for_the_lock_looks_again_at_the_pace_of_sql(
    connected: World, http: Client, provider: PretendProvider, own_valkey: Valkey
) -> None:
    account = connected.consent()
    with own_valkey.client() as admin:
        admin.acl_setuser("deaf", enabled=True, nopass=True, keys=["*"], categories=["+@all"], reset_channels=True)
        held = RefreshLock(admin, ttl=60 * SECOND, token=lambda: "another").acquire(account)
        assert isinstance(held, Held)
        pauses: list[float] = []

        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                held.release()

        deaf = redis.Redis.from_url(own_valkey.url, username="deaf", password="any")
        with deaf as client:
            lock = RefreshLock(client, ttl=SECOND, token=connected.id)
            assert not lock.wait(account, within=SECOND)
            assert coordinator(connected, http, client, Gate(None), sleep).refresh(account, after_generation=1) == 2
    assert pauses == [BUDGET.poll.total_seconds()] * 3
    assert provider.presented.total() == 1
