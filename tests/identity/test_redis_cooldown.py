"""A Redis that failed is left alone, then tried by one caller at a time; a refusal of one key is no failure of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest
import redis
from redis._parsers.base import BaseParser
from redis.client import Pipeline

from identity.metrics import REDIS_FAILURES
from identity.redis_cooldown import RedisCooldown
from identity.shared_by_redis import SharedByRedis
from tests.servers.valkey import Valkey

LASTS = timedelta(seconds=5)
#: Redis before 7.0 begins so: https://github.com/outline/outline/issues/1538, and of a replica
#: https://github.com/spring-projects/spring-data-redis/issues/3042. Dragonfly leaves out the second name of the line.
OF_A_SCRIPT = "ERR Error running script (call to f_0a9a51ee96320953ec7bde8e63f3f060b9dac00c): @user_script:41: "
WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_outage_is_logged_as_it_begins_and_as_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    client, clock = Refuses(redis.ConnectionError("connecting to 10.0.0.1")), Clock()
    shared = Counting(cast("redis.Redis", client), cooldown=RedisCooldown(lasts=LASTS, monotonic=clock))
    failed = REDIS_FAILURES._value.get()
    for _ in range(3):
        assert [shared.count() for _ in range(2)] == [None, None]
        clock.now += 5
    assert REDIS_FAILURES._value.get() == failed + 3
    client.error = None
    assert [shared.count() for _ in range(2)] == [1, 1]
    assert [record.message for record in caplog.records] == [
        "Redis is left alone for 5 s: ConnectionError",
        "Redis answers again",
    ]


def refusal(reply: str) -> Exception:
    """As redis-py reads this reply."""
    read: Callable[[str], Exception] = BaseParser.parse_error
    return read(reply)


class Refuses:
    """A client whose scripts are refused as long as there is an error."""

    connection_pool = redis.ConnectionPool()

    def __init__(self, error: Exception) -> None:
        self.error: Exception | None = error
        self.asked = 0

    def register_script(self, script: str) -> Callable[..., int]:
        def run(**_: Any) -> int:
            self.asked += 1
            if self.error is not None:
                raise self.error
            return 1

        return run


class Counting(SharedByRedis):
    script = "return 1"

    def count(self) -> int | None:
        return self._together(["key"])


class Writing(Counting):
    script = "redis.call('SET', KEYS[1], 'x') return 1"


@pytest.mark.parametrize(
    ("reply", "asked"),
    [
        (WRONG_TYPE, 2),
        ("MISCONF Redis is configured to save RDB snapshots", 1),
        ("NOREPLICAS Not enough good replicas to write.", 1),
        ("BUSY Redis is busy running a script.", 1),
        ("CLUSTERDOWN The cluster is down", 1),
        ("MASTERDOWN Link with MASTER is down", 1),
        ("READONLY You can't write against a read only replica.", 1),
        ("OOM command not allowed when used memory > 'maxmemory'.", 1),
        ("NOPERM User web has no permissions to run the 'evalsha' command", 1),
        ("ERR unknown command 'EVALSHA', with args beginning with: ", 1),
        ("LOADING Redis is loading the dataset in memory", 1),
        (f"{OF_A_SCRIPT}{WRONG_TYPE}", 2),
        (f"{OF_A_SCRIPT}@user_script: 41: Unknown Redis command called from Lua script", 2),
        (f"{OF_A_SCRIPT}@user_script: 41: -OOM command not allowed when used memory > 'maxmemory'.", 1),
        (f"{OF_A_SCRIPT}@user_script: 41: -READONLY You can't write against a read only replica.", 1),
        (f"{OF_A_SCRIPT}@user_script: 41: -MISCONF Redis is configured to save RDB snapshots", 1),
        (f"{OF_A_SCRIPT}-READONLY You can't write against a read only replica.", 1),
        (f"{OF_A_SCRIPT}@user_script: 41: -CLUSTERDOWN Hash slot not served", 1),
        (f"{OF_A_SCRIPT}@user_script: 41: -NOPERM this user has no permissions to run the 'zadd' command", 1),
    ],
)
def test_only_what_refuses_everybody_keeps_others_from_asking(reply: str, asked: int) -> None:
    client = Refuses(refusal(reply))
    cooldown = RedisCooldown(lasts=LASTS, monotonic=Clock())
    shared = [Counting(cast("redis.Redis", client), cooldown=cooldown) for _ in range(2)]
    assert [one.count() for one in shared] == [None, None]
    assert client.asked == asked


@pytest.mark.parametrize(
    ("reply", "asked"),
    [
        (WRONG_TYPE, 2),
        ("BUSY Redis is busy running a script.", 1),
        ("ERR unknown command 'ZCARD', with args beginning with: ", 1),
        ("OOM command not allowed when used memory > 'maxmemory'.", 1),
    ],
)
def test_a_refusal_within_a_pipeline_is_read_as_one_outside(reply: str, asked: int) -> None:
    error = refusal(reply)
    annotate: Callable[..., None] = Pipeline.annotate_exception
    annotate(None, error, 1, ("ZCARD", "aswhom:endpoint:gh:0a9a51ee:line"))
    assert str(error).startswith("Command # 1 (ZCARD aswhom:endpoint:gh:0a9a51ee:line) of pipeline caused error: ")
    client = Refuses(error)
    shared = Counting(cast("redis.Redis", client), cooldown=RedisCooldown(lasts=LASTS, monotonic=Clock()))
    assert [shared.count() for _ in range(2)] == [None, None]
    assert client.asked == asked


@pytest.mark.parametrize("set_to", [{"maxmemory": 1}, {"min-replicas-to-write": 1}], ids=["full", "too few replicas"])
def test_a_server_that_takes_nobodys_writes_is_left_alone(own_valkey: Valkey, set_to: dict[str, int]) -> None:
    with own_valkey.client() as client:
        shared = Writing(client, cooldown=RedisCooldown(lasts=LASTS, monotonic=Clock()))
        assert shared.count() == 1
        for name, value in set_to.items():
            client.config_set(name, value)
        assert shared.count() is None
        for name in set_to:
            client.config_set(name, 0)
        assert shared.count() is None


def test_a_refusal_of_one_key_says_that_redis_is_back() -> None:
    client, clock = Refuses(redis.TimeoutError()), Clock()
    cooldown = RedisCooldown(lasts=LASTS, monotonic=clock)
    shared = Counting(cast("redis.Redis", client), cooldown=cooldown)
    assert shared.count() is None
    clock.now += 5
    client.error = refusal(WRONG_TYPE)
    assert shared.count() is None
    assert [cooldown.turn() is not None for _ in range(2)] == [True, True]


def test_a_refusal_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    client, clock = Refuses(refusal(WRONG_TYPE)), Clock()
    shared = Counting(cast("redis.Redis", client), monotonic=clock)
    for clock.now in (0.0, 1.0, 59.0, 60.0, 61.0):
        assert shared.count() is None
    assert [record.message for record in caplog.records] == [f"Redis refused a script: {WRONG_TYPE}"] * 2
