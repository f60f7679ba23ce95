"""Quotas: counted for all processes in Redis, by each alone while that is away, and told of in headers."""

from __future__ import annotations

import secrets

import redis

from tests.servers.valkey import Valkey
from webhooks.quota import AWAY, Quota


def caller() -> str:
    return secrets.token_hex(8)


def test_two_processes_count_together(valkey: Valkey) -> None:
    who = caller()
    with valkey.client() as one, valkey.client() as other:
        first, second = Quota(3, one, prefix="t:"), Quota(3, other, prefix="t:")
        spent = [first.spend(who), second.spend(who), first.spend(who), second.spend(who)]
    assert [one.allowed for one in spent] == [True, True, True, False]
    assert spent[0].remaining == 2
    assert 1 <= spent[-1].resets_in <= 60


def test_keys_have_quotas_of_their_own(valkey: Valkey) -> None:
    with valkey.client() as client:
        quota = Quota(1, client, prefix="t:")
        assert [quota.spend(caller()).allowed for _ in range(3)] == [True, True, True]


def test_kinds_of_keys_are_counted_apart(valkey: Valkey) -> None:
    who = caller()
    with valkey.client() as client:
        quotas = [Quota(1, client, prefix="t:", of=kind) for kind in ("connection", "tenant")]
        assert [quota.spend(who).allowed for quota in quotas] == [True, True]


def test_each_process_counts_alone_while_redis_is_away_and_asks_again_later() -> None:
    gone = redis.Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2)
    times = [0.0]
    quota, who = Quota(2, gone, prefix="t:", monotonic=lambda: times[0]), caller()
    assert [quota.spend(who).allowed for _ in range(3)] == [True, True, False]
    assert quota._away_until == AWAY
    times[0] = AWAY + 1
    quota.spend(who)
    assert quota._away_until == 2 * AWAY + 1
