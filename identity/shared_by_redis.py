"""State that all workers share through a script in one Redis. While Redis is away, each process works alone."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import ClassVar, TypedDict, TypeVar

import redis
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from identity.redis_cooldown import RedisCooldown

log = logging.getLogger(__name__)

T = TypeVar("T")

_MICROSECOND = timedelta(microseconds=1)
_TOLD_AGAIN = 60.0  # seconds: a refusal of one key may come with each call

#: Errors by which Redis refuses everybody. redis-py takes the code from the text of those that have a class.
_REFUSES_ALL = (ClusterDownError, MasterDownError, NoPermissionError, OutOfMemoryError, ReadOnlyError)
#: The code comes first, or after a prefix: redis-py names the pipeline's command that failed, and Redis before 7.0 the
#: line of a script ("ERR Error running script (call to f_…): @user_script:9: @user_script: 9: -OOM …").
_CODES = "BUSY|CLUSTERDOWN|MASTERDOWN|MISCONF|NOPERM|NOREPLICAS|OOM|READONLY|unknown command"
_REFUSES_ALL_SAYING = re.compile(rf"(^|: )-?({_CODES}) ")


class Sharing(TypedDict, total=False):
    """Options of `SharedByRedis` besides the client, for subclasses to pass on."""

    prefix: str
    monotonic: Callable[[], float]
    cooldown: RedisCooldown | None


class SharedByRedis:
    """Base of objects shared through one Redis script; one for all threads of a process.

    A *client* of None counts as a Redis that is always away; *monotonic*, in seconds, is the clock while it is away.
    *cooldown* is shared by all users of that Redis.
    """

    script: ClassVar[str]

    def __init__(
        self,
        client: redis.Redis | None,
        *,
        prefix: str = "aswhom:",
        monotonic: Callable[[], float] = time.monotonic,
        cooldown: RedisCooldown | None = None,
    ) -> None:
        self._client = client
        self._script = client.register_script(self.script) if client is not None else None
        self._prefix = prefix
        self._monotonic = monotonic
        self._cooldown = cooldown or RedisCooldown(monotonic=monotonic)
        self._lock = threading.Lock()
        self._refusal_told: float | None = None

    def _together(self, keys: Sequence[str], *said: str | int | timedelta) -> int | None:
        """Return the script's answer; None while Redis is away. Durations are passed as microseconds."""
        if (script := self._script) is None:
            return None
        arguments = [one // _MICROSECOND if isinstance(one, timedelta) else one for one in said]
        return self._reach(lambda _: int(script(keys=keys, args=arguments)))

    def _reach(self, do: Callable[[redis.Redis], T]) -> T | None:
        """Return the result of *do* at Redis; None while it is away."""
        if self._client is None or (turn := self._cooldown.turn()) is None:
            return None
        try:
            outcome = do(self._client)
        except redis.RedisError as error:
            if _is_of_one_key(error):
                self._cooldown.answered(turn)
                self._tell_refusal(error)
            else:
                self._cooldown.missed(turn, error)
                # A node that a planned failover has demoted keeps its connections: only a new one finds the primary.
                self._client.connection_pool.disconnect(inuse_connections=False)
            return None
        self._cooldown.answered(turn)
        return outcome

    def _tell_refusal(self, error: redis.RedisError) -> None:
        now = self._monotonic()
        with self._lock:
            if self._refusal_told is not None and now < self._refusal_told + _TOLD_AGAIN:
                return
            self._refusal_told = now
        log.error("Redis refused a script: %s", error, extra={"action": "redis.refused"})

    def _by_itself(self, count: Callable[[int], T]) -> T:
        """Return the result of *count* at the present microsecond, one thread at a time."""
        with self._lock:
            return count(int(self._monotonic() * 1_000_000))


def _is_of_one_key(error: redis.RedisError) -> bool:
    """A refusal of this script or its keys: others are served, so Redis is not away."""
    if not isinstance(error, ResponseError) or isinstance(error, _REFUSES_ALL):
        return False
    return _REFUSES_ALL_SAYING.search(str(error)) is None
