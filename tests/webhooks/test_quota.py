"""Quotas: counted for all processes in Redis, by each alone while that is away, and told of in headers."""

from __future__ import annotations

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest
import redis
from limits.storage import RedisStorage
from limits.strategies import RateLimiter

from tests.servers.valkey import Valkey
from webhooks.quota import AWAY, PATIENCE, Quota, SharedCounts


def caller() -> str:
    return secrets.token_hex(8)


def test_two_processes_count_together(valkey: Valkey) -> None:
    who = caller()
    with valkey.client() as one, valkey.client() as other:
        first, second = (Quota(3, SharedCounts(client, prefix="t:")) for client in (one, other))
        spent = [first.spend(who), second.spend(who), first.spend(who), second.spend(who)]
    assert [one.allowed for one in spent] == [True, True, True, False]
    assert spent[0].remaining == 2
    assert 1 <= spent[-1].resets_in <= 60


def test_keys_have_quotas_of_their_own(valkey: Valkey) -> None:
    with valkey.client() as client:
        quota = Quota(1, SharedCounts(client, prefix="t:"))
        assert [quota.spend(caller()).allowed for _ in range(3)] == [True, True, True]


def test_kinds_of_keys_are_counted_apart(valkey: Valkey) -> None:
    who = caller()
    with valkey.client() as client:
        shared = SharedCounts(client, prefix="t:")
        quotas = [Quota(1, shared, of=kind) for kind in ("connection", "tenant")]
        assert [quota.spend(who).allowed for quota in quotas] == [True, True]


def test_each_process_counts_alone_while_redis_is_away_and_asks_again_later() -> None:
    gone = redis.Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2)
    times = [0.0]
    shared = SharedCounts(gone, prefix="t:", monotonic=lambda: times[0])
    quota, who = Quota(2, shared), caller()
    assert [quota.spend(who).allowed for _ in range(3)] == [True, True, False]
    assert shared._again == AWAY
    times[0] = AWAY + 1
    quota.spend(who)
    assert shared._again == 2 * AWAY + 1


def test_a_redis_that_hangs_costs_one_request_a_moment_and_the_others_nothing(
    own_valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    shared = SharedCounts.at(own_valkey.socket_url, prefix="t:", monotonic=lambda: 0.0)
    quotas = [Quota(100, shared, of=kind) for kind in ("connection", "tenant", "key")]
    who = caller()
    assert quotas[0].spend(who).remaining == 99
    own_valkey.pause()
    try:
        for quota in quotas:
            assert quota.spend(who).allowed
    finally:
        own_valkey.resume()
    waited = [record for record in caplog.records if getattr(record, "action", "") == "quota.alone"]
    assert len(waited) == 1, "one of the three waited"


def test_a_request_waits_for_redis_no_longer_than_a_person_at_slack_does_not_notice() -> None:
    shared = SharedCounts.at("redis://127.0.0.1:1/0", prefix="t:")
    waits = cast("RedisStorage", shared._limiter.storage).storage.connection_pool.connection_kwargs
    assert (waits["socket_timeout"], waits["socket_connect_timeout"]) == (PATIENCE, PATIENCE)
    assert 3 * PATIENCE < 1, "once to connect and once for each of two answers"


def test_one_asks_a_redis_that_was_away_again_while_the_others_go_on_and_all_do_once_it_answers(
    own_valkey: Valkey,
) -> None:
    times = [0.0]
    with own_valkey.client() as client:
        shared = SharedCounts(client, prefix="t:", monotonic=lambda: times[0])
        own_valkey.kill()
        assert shared.ask(told) is None
        own_valkey.start()
        times[0] = AWAY
        asked, go_on = threading.Event(), threading.Event()

        def slowly(limiter: RateLimiter) -> str:
            asked.set()
            assert go_on.wait(60)
            return told(limiter)

        with ThreadPoolExecutor() as pool:
            first = pool.submit(shared.ask, slowly)
            assert asked.wait(60)
            assert shared.ask(told) is None, "it waits for nobody who hangs there"
            go_on.set()
            assert first.result(60) == "told"
        assert shared.ask(told) == "told"


def told(limiter: RateLimiter) -> str:
    limiter.storage.get("t:nothing")
    return "told"
