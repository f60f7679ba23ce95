"""A Redis that failed is left alone, then tried by one caller at a time; a refusal of one key is no failure of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest
import redis

from identity.redis_cooldown import RedisCooldown
from identity.shared_by_redis import SharedByRedis

LASTS = timedelta(seconds=5)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_after_a_failure_one_caller_per_cooldown_tries_it_until_it_answers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    cooldown = RedisCooldown(lasts=LASTS, monotonic=clock)
    assert [cooldown.may_ask() for _ in range(3)] == [True] * 3
    cooldown.failed(redis.ConnectionError("connecting to 10.0.0.1"))
    assert not cooldown.may_ask()
    clock.now += 5
    assert [cooldown.may_ask() for _ in range(3)] == [True, False, False]
    clock.now += 5
    assert cooldown.may_ask(), "whoever tried it may have died"
    cooldown.failed(redis.TimeoutError())
    assert not cooldown.may_ask()
    clock.now += 5
    assert cooldown.may_ask()
    cooldown.answered()
    assert [cooldown.may_ask() for _ in range(3)] == [True] * 3
    assert [record.message for record in caplog.records] == [
        "Redis is left alone for 5 s: ConnectionError",
        "Redis answers again",
    ]


def test_a_cooldown_that_ends_as_the_clock_reads_zero_is_waited_for() -> None:
    clock = Clock()
    clock.now = -5.0  # where a monotonic clock begins is not said
    cooldown = RedisCooldown(lasts=LASTS, monotonic=clock)
    cooldown.failed(redis.ConnectionError())
    clock.now = -1.0
    assert not cooldown.may_ask()
    clock.now = 0.0
    assert [cooldown.may_ask() for _ in range(2)] == [True, False]


class Refuses:
    """A client whose scripts are refused."""

    def __init__(self, error: redis.RedisError) -> None:
        self.error, self.asked = error, 0

    def register_script(self, script: str) -> Callable[..., int]:
        def run(**_: Any) -> int:
            self.asked += 1
            raise self.error

        return run


class Counting(SharedByRedis):
    script = "return 1"

    def count(self) -> int | None:
        return self._together(["key"])


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), 2),
        (redis.ResponseError("MISCONF Redis is configured to save RDB snapshots"), 1),
        (redis.ResponseError("BUSY Redis is busy running a script."), 1),
        (redis.exceptions.ReadOnlyError("You can't write against a read only replica."), 1),
        (redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), 1),
        (redis.TimeoutError("Timeout reading from socket"), 1),
    ],
    ids=["one key", "no snapshots", "busy", "a replica", "full", "hangs"],
)
def test_only_what_refuses_everybody_keeps_others_from_asking(error: redis.RedisError, asked: int) -> None:
    client = Refuses(error)
    cooldown = RedisCooldown(lasts=LASTS, monotonic=Clock())
    shared = [Counting(cast("redis.Redis", client), rest=cooldown) for _ in range(2)]
    assert [one.count() for one in shared] == [None, None]
    assert client.asked == asked


def test_a_refusal_of_one_key_says_that_redis_is_back() -> None:
    client, clock = Refuses(redis.TimeoutError()), Clock()
    cooldown = RedisCooldown(lasts=LASTS, monotonic=clock)
    shared = Counting(cast("redis.Redis", client), rest=cooldown)
    assert shared.count() is None
    clock.now += 5
    client.error = redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
    assert shared.count() is None
    assert [cooldown.may_ask() for _ in range(2)] == [True, True]
