"""What all workers share by a script in one Redis; while that is away, each process does what it can by itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import ClassVar, TypedDict, TypeVar

import redis
from redis.exceptions import MasterDownError, OutOfMemoryError, ReadOnlyError, ResponseError

from identity.redis_cooldown import RedisCooldown

log = logging.getLogger(__name__)

T = TypeVar("T")

_MICROSECOND = timedelta(microseconds=1)


class Sharing(TypedDict, total=False):
    """What the next one is opened with besides a client."""

    prefix: str
    monotonic: Callable[[], float]
    rest: RedisCooldown | None


class SharedByRedis:
    """One for all threads of a process.

    *client* None is a Redis that is always away; *monotonic*, in seconds, is the clock while it is. *rest*: whether it
    is, as all know who ask that Redis.
    """

    script: ClassVar[str]

    def __init__(
        self,
        client: redis.Redis | None,
        *,
        prefix: str = "aswhom:",
        monotonic: Callable[[], float] = time.monotonic,
        rest: RedisCooldown | None = None,
    ) -> None:
        self._client = client
        self._script = client.register_script(self.script) if client is not None else None
        self._prefix = prefix
        self._monotonic = monotonic
        self._rest = rest or RedisCooldown(monotonic=monotonic)
        self._lock = threading.Lock()

    def _together(self, keys: Sequence[str], *said: str | int | timedelta) -> int | None:
        """What the script answers, to which durations are microseconds; None: Redis is away."""
        if (script := self._script) is None:
            return None
        arguments = [one // _MICROSECOND if isinstance(one, timedelta) else one for one in said]
        return self._reach(lambda _: int(script(keys=keys, args=arguments)))

    def _reach(self, do: Callable[[redis.Redis], T]) -> T | None:
        """What comes of *do* at Redis; None: it is away."""
        if self._client is None or not self._rest.may_ask():
            return None
        try:
            outcome = do(self._client)
        except redis.RedisError as error:
            if _is_of_one_key(error):
                log.error("Redis refused a script: %s", error, extra={"action": "redis.refused"})
            else:
                self._rest.failed(error)
            return None
        self._rest.answered()
        return outcome

    def _by_itself(self, count: Callable[[int], T]) -> T:
        """What *count* says at this microsecond, one thread at a time."""
        with self._lock:
            return count(int(self._monotonic() * 1_000_000))


def _is_of_one_key(error: redis.RedisError) -> bool:
    """A refusal of this script or its keys: others are served, so Redis is not away."""
    if not isinstance(error, ResponseError) or isinstance(error, (MasterDownError, OutOfMemoryError, ReadOnlyError)):
        return False
    return not str(error).startswith(("MISCONF", "NOREPLICAS", "CLUSTERDOWN"))
