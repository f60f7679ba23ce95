"""The refresh lock on a real Valkey: owners, waiters, and what happens without it."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import redis

from identity.refresh.lock import Busy, Held, RefreshLock, Unreachable
from tests.servers.valkey import Valkey
from tests.waiting import eventually

_names = itertools.count()
TTL, LONG = timedelta(seconds=30), timedelta(seconds=60)  # LONG: whoever waits so long was not woken


@pytest.fixture
def account() -> str:
    return f"lock-test-{next(_names)}"


def lock(client: redis.Redis | None, *, ttl: timedelta = TTL) -> RefreshLock:
    return RefreshLock(client, ttl=ttl, token=lambda: f"owner-{next(_names)}", prefix="test:")


def test_one_of_many_gets_it(valkey_client: redis.Redis, account: str) -> None:
    with ThreadPoolExecutor(16) as pool:
        taken = list(pool.map(lambda _: lock(valkey_client).acquire(account), range(16)))
    assert sum(isinstance(each, Held) for each in taken) == 1
    assert sum(isinstance(each, Busy) for each in taken) == 15


def test_a_released_lock_is_free(valkey_client: redis.Redis, account: str) -> None:
    held = lock(valkey_client).acquire(account)
    assert isinstance(held, Held)
    held.release()
    assert isinstance(lock(valkey_client).acquire(account), Held)


def test_a_late_owner_releases_and_renews_nothing(valkey_client: redis.Redis, account: str) -> None:
    late = lock(valkey_client, ttl=timedelta(milliseconds=20)).acquire(account)
    assert isinstance(late, Held)
    time.sleep(0.05)
    assert isinstance(lock(valkey_client).acquire(account), Held)
    assert not late.renew()
    late.release()
    assert isinstance(lock(valkey_client).acquire(account), Busy)


def test_renewing_gives_the_whole_time_again(valkey_client: redis.Redis, account: str) -> None:
    held = lock(valkey_client).acquire(account)
    assert isinstance(held, Held)
    valkey_client.pexpire(held.key, 10_000)
    assert held.renew()
    assert int(valkey_client.pttl(held.key)) > 20_000


def test_waiters_are_woken_all_at_once(valkey_client: redis.Redis, account: str) -> None:
    held = lock(valkey_client).acquire(account)
    assert isinstance(held, Held)
    with ThreadPoolExecutor(9) as pool:  # not 8: of so many listeners Valkey 9.1.2 says that they are millions
        began = time.monotonic()
        waits = [pool.submit(lock(valkey_client).wait, account, within=LONG) for _ in range(9)]
        eventually(lambda: valkey_client.pubsub_numsub(held.channel)[0][1] == 9, "all listen", seconds=40)
        held.release()
        for wait in waits:
            wait.result()
    assert time.monotonic() - began < 50


def test_a_release_before_the_subscription_is_not_missed(valkey_client: redis.Redis, account: str) -> None:
    began = time.monotonic()
    lock(valkey_client).wait(account, within=LONG)
    assert time.monotonic() - began < 50


def test_a_wait_ends_when_the_lock_expires_or_the_time_is_over(valkey_client: redis.Redis, account: str) -> None:
    lock(valkey_client, ttl=timedelta(milliseconds=300)).acquire(account)
    began = time.monotonic()
    lock(valkey_client).wait(account, within=LONG)
    assert time.monotonic() - began < 50
    lock(valkey_client).acquire(account)
    began = time.monotonic()
    lock(valkey_client).wait(account, within=timedelta(milliseconds=200))
    assert time.monotonic() - began < 50


def test_a_client_that_is_none_says_so(account: str) -> None:
    nowhere = lock(None)
    assert isinstance(nowhere.acquire(account), Unreachable)
    nowhere.wait(account, within=timedelta(seconds=10))


def test_a_server_that_is_gone_is_said_and_not_raised(own_valkey: Valkey, account: str) -> None:
    with own_valkey.client() as client:
        held = lock(client).acquire(account)
        assert isinstance(held, Held)
        waiting = threading.Thread(target=lock(client).wait, args=(account,), kwargs={"within": timedelta(minutes=5)})
        waiting.start()
        own_valkey.kill()
        assert isinstance(lock(client).acquire(account), Unreachable)
        assert not held.renew()
        held.release()
        waiting.join(60)
        assert not waiting.is_alive()
