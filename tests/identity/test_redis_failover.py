"""A planned failover of Redis: the address moves to another node, and the old one lives on as its replica."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis

from identity.redis_cooldown import RedisCooldown
from identity.shared_by_redis import SharedByRedis
from tests.servers.proxy import Proxy, proxy
from tests.servers.valkey import Valkey
from tests.servers.valkey import valkey as run_valkey
from webhooks import quota
from webhooks.quota import Quota, SharedCounts


class Writing(SharedByRedis):
    script = "return redis.call('INCR', KEYS[1])"

    def count(self) -> int | None:
        return self._together(["key"])


class Failover:
    """Two nodes and the address by which clients reach the primary."""

    def __init__(self, old: Valkey, new: Valkey, address: Proxy) -> None:
        self.old, self.new, self.address = old, new, address
        self.url = f"redis://:{old.password}@{address.host}:{address.port}/0"

    def happen(self) -> None:
        """Nobody cuts the old node's connections."""
        with self.new.client() as client:
            client.set("key", 100)
            client.config_set("requirepass", self.old.password)
        with self.old.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", self.new.port)
        self.address.upstream = ("127.0.0.1", self.new.port)


@pytest.fixture(params=["yes", "no"], ids=["read only", "cut off from its primary"])
def failover(own_valkey: Valkey, request: pytest.FixtureRequest) -> Iterator[Failover]:
    with run_valkey() as new, proxy("127.0.0.1", own_valkey.port) as address:
        with own_valkey.client() as client:
            client.config_set("replica-serve-stale-data", request.param)  # the new node's password is not its own
        yield Failover(own_valkey, new, address)


def test_scripts_go_to_the_new_primary_after_one_cooldown(failover: Failover) -> None:
    now = [0.0]
    cooldown = RedisCooldown(lasts=timedelta(seconds=5), monotonic=lambda: now[0])
    with redis.Redis.from_url(failover.url) as client:
        shared = Writing(client, cooldown=cooldown)
        assert shared.count() == 1
        failover.happen()
        assert shared.count() is None
        now[0] = 5.0
        assert shared.count() == 101


def test_quotas_are_counted_at_the_new_primary_after_one_cooldown(failover: Failover) -> None:
    now = [0.0]
    shared = SharedCounts.at(failover.url, prefix="t:", monotonic=lambda: now[0])
    requests = Quota(100, shared)
    assert [requests.spend("me").remaining for _ in range(3)] == [99, 98, 97]
    failover.happen()
    assert requests.spend("me").remaining == 99, "by itself"
    now[0] = quota.AWAY.total_seconds()
    requests.spend("me")
    with redis.Redis.from_url(failover.url) as client:
        assert client.keys("t:quota*"), "the new primary counts"
