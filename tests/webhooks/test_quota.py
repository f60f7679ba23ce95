"""Quotas: counted for all processes in Redis, by each alone while that is away, and told of in headers."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
import redis
from limits import RateLimitItemPerMinute, WindowStats
from limits.errors import StorageError
from limits.storage import RedisStorage

from tests.servers.valkey import Valkey
from webhooks import quota as settings
from webhooks.quota import PATIENCE, Quota, SharedCounts, Spent

AWAY = settings.AWAY.total_seconds()


def caller() -> str:
    return secrets.token_hex(8)


def test_two_processes_count_together(valkey: Valkey) -> None:
    who = caller()
    with valkey.client() as one, valkey.client() as other:
        first, second = (Quota(3, SharedCounts(client, prefix="t:", monotonic=lambda: 0.0)) for client in (one, other))
        spent = [first.spend(who), second.spend(who), first.spend(who), second.spend(who)]
    assert [one.allowed for one in spent] == [True, True, True, False]
    assert spent[0].remaining == 2
    assert 1 <= spent[-1].resets_in <= 60


def test_what_is_not_told_how_much_remains_is_counted_all_the_same(valkey: Valkey) -> None:
    who = caller()
    with valkey.client() as client:
        quota = Quota(3, SharedCounts(client, prefix="t:", monotonic=lambda: 0.0))
        assert [quota.refusal(who) for _ in range(2)] == [None, None]
        assert quota.spend(who).remaining == 0
        over = quota.refusal(who)
        assert over is not None
        assert (over.allowed, over.limit, over.remaining) == (False, 3, 0)


def test_a_rate_that_changes_counts_what_came_before(valkey: Valkey) -> None:
    who = caller()
    with valkey.client() as client:
        quota = Quota(3, SharedCounts(client, prefix="t:"))
        assert [quota.spend(who).allowed for _ in range(4)] == [True, True, True, False]
        assert [quota.spend(who, 5).remaining for _ in range(2)] == [1, 0]
        assert not quota.spend(who, 2).allowed, "a lower one begins no new minute"


def test_keys_have_quotas_of_their_own(valkey: Valkey) -> None:
    with valkey.client() as client:
        quota = Quota(1, SharedCounts(client, prefix="t:", monotonic=lambda: 0.0))
        assert [quota.spend(caller()).allowed for _ in range(3)] == [True, True, True]


def test_kinds_of_keys_are_counted_apart(valkey: Valkey) -> None:
    who = caller()
    with valkey.client() as client:
        shared = SharedCounts(client, prefix="t:", monotonic=lambda: 0.0)
        quotas = [Quota(1, shared, of=kind) for kind in ("connection", "tenant")]
        assert [quota.spend(who).allowed for quota in quotas] == [True, True]


def test_each_process_counts_alone_while_redis_is_away_and_asks_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = redis.Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2)
    times = [0.0]
    asked: list[float] = []
    shared = SharedCounts(gone, prefix="t:", monotonic=lambda: times[0])
    hit = shared._limiter.hit

    def noted(*of: Any) -> bool:
        asked.append(times[0])
        return hit(*of)

    monkeypatch.setattr(shared._limiter, "hit", noted)
    quota, who = Quota(2, shared), caller()
    assert [quota.spend(who).allowed for _ in range(3)] == [True, True, False]
    for times[0] in (AWAY - 1, AWAY, AWAY + 1, 2 * AWAY):
        quota.spend(who)
    assert asked == [0.0, AWAY, 2 * AWAY]


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
    own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [0.0]
    with own_valkey.client() as client:
        shared = SharedCounts(client, prefix="t:", monotonic=lambda: times[0])
        own_valkey.kill()
        assert spend(shared) is None
        own_valkey.start()
        times[0] = AWAY
        asked, go_on = threading.Event(), threading.Event()
        hit = shared._limiter.hit

        def slowly(*of: Any) -> bool:
            asked.set()
            assert go_on.wait(60)
            return hit(*of)

        monkeypatch.setattr(shared._limiter, "hit", slowly)
        with ThreadPoolExecutor() as pool:
            first = pool.submit(spend, shared)
            assert asked.wait(60)
            assert spend(shared) is None, "it waits for nobody who hangs there"
            go_on.set()
            assert first.result(60) is not None
        assert spend(shared) is not None


def spend(shared: SharedCounts) -> Spent | None:
    return shared.spend(RateLimitItemPerMinute(9), "key", caller())


def test_a_redis_that_answers_slowly_each_time_is_done_without(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No single answer is late, and all of a count are together. Once, this machine may have been slow."""
    times, takes = [0.0], [PATIENCE * 0.9]
    with valkey.client() as client:
        shared = SharedCounts(client, prefix="t:", monotonic=lambda: times[0])
        for name in ("hit", "get_window_stats"):
            monkeypatch.setattr(shared._limiter, name, _taking(getattr(shared._limiter, name), times, takes))
        assert spend(shared) is not None
        takes[0] = 0.0
        assert spend(shared) is not None, "it was slow once"
        takes[0] = PATIENCE * 0.9
        assert [spend(shared) is not None for _ in range(4)] == [True, True, False, False]
        times[0] += AWAY
        assert [spend(shared) is not None for _ in range(2)] == [True, False], "one asks whether it is quick again"
        times[0] += AWAY
        takes[0] = 0.0
        assert [spend(shared) is not None for _ in range(3)] == [True] * 3
    assert [record.error for record in caplog.records] == ["slow"]  # type: ignore[attr-defined]


def test_a_slow_trial_does_not_end_an_outage(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    times, takes = [0.0], [0.0]
    with valkey.client() as client, redis.Redis(host="127.0.0.1", port=1) as gone:
        shared = SharedCounts(gone, prefix="t:", monotonic=lambda: times[0])
        away, there = shared._limiter, SharedCounts(client, prefix="t:")._limiter
        assert (spend(shared), spend(shared)) == (None, None)
        for name in ("hit", "get_window_stats"):
            monkeypatch.setattr(away, name, _taking(getattr(there, name), times, takes))
        times[0], takes[0] = AWAY, PATIENCE
        assert [spend(shared) is not None for _ in range(2)] == [True, False]
        times[0], takes[0] = 3 * AWAY, 0.0
        assert [spend(shared) is not None for _ in range(2)] == [True, True]
    assert [record.error for record in caplog.records] == ["ConnectionError"]  # type: ignore[attr-defined]


def test_a_redis_that_is_slow_over_new_connections_only_is_shared_again(own_valkey: Valkey) -> None:
    """A handshake takes several round trips, so the first count over a connection can be slow each time."""
    times = [0.0]

    def slowly(connection: Any) -> None:
        times[0] += 2 * PATIENCE
        connection.on_connect()

    with redis.Redis.from_url(own_valkey.socket_url, redis_connect_func=slowly) as client:
        shared = SharedCounts(client, prefix="t:", monotonic=lambda: times[0])
        own_valkey.kill()
        assert spend(shared) is None
        own_valkey.start()
        told = []
        for _ in range(2):
            times[0] += AWAY
            told += [spend(shared) is not None for _ in range(2)]
    assert told == [True, False, True, True], "the second probe is over the first one's connection"


def _taking(ask: Callable[..., Any], times: list[float], takes: list[float]) -> Callable[..., Any]:
    """*ask*, after which so much time has passed."""

    def asked(*of: Any) -> Any:
        times[0] += takes[0]
        return ask(*of)

    return asked


def test_of_those_who_ask_a_redis_as_it_hangs_the_first_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shared = SharedCounts(redis.Redis(host="127.0.0.1", port=1), prefix="t:", monotonic=lambda: 0.0)
    all_ask = threading.Barrier(4, timeout=60)

    def hangs(*_: Any) -> bool:
        all_ask.wait()
        raise StorageError(TimeoutError())

    monkeypatch.setattr(shared._limiter, "hit", hangs)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(spend, [shared] * 4)) == [None] * 4
    assert [record.error for record in caplog.records] == ["TimeoutError"]  # type: ignore[attr-defined]


def test_a_count_that_began_before_a_failure_does_not_bring_the_others_back(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [0.0]
    with redis.Redis(host="127.0.0.1", port=1) as client:
        shared = SharedCounts(client, prefix="t:", monotonic=lambda: times[0])
        counting, go_on = threading.Event(), threading.Event()
        asked: list[str] = []

        def hit(item: object, of: str, key: str) -> bool:
            asked.append(key)
            if key == "slow":
                counting.set()
                assert go_on.wait(60)
                return True
            raise StorageError(TimeoutError())

        monkeypatch.setattr(shared._limiter, "hit", hit)
        monkeypatch.setattr(shared._limiter, "get_window_stats", lambda *_: WindowStats(60.0, 8))
        item = RateLimitItemPerMinute(9)
        with ThreadPoolExecutor() as pool:
            slow = pool.submit(shared.spend, item, "key", "slow")
            assert counting.wait(60)
            assert shared.spend(item, "key", "fails") is None
            go_on.set()
            assert slow.result(60) is not None
        assert shared.spend(item, "key", "after") is None
    assert asked == ["slow", "fails"]
