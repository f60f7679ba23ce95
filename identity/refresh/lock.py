"""The per-account refresh lock in Redis: it saves work and provides no safety.

The intent's row in SQL prevents a second presentation of a refresh token. When Redis is unreachable, the lock says so
and the caller goes on; a lost or duplicate lock costs only a wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files
from typing import Unpack

import redis
from redis.commands.core import Script

from identity.shared_by_redis import SharedByRedis, Sharing


@dataclass(frozen=True, kw_only=True)
class Busy:
    """Another caller holds the lock; `wait` until it is done."""


@dataclass(frozen=True, kw_only=True)
class Unreachable:
    """No lock is available; only the intent serializes."""

    def renew(self) -> bool:
        return False

    def release(self) -> None:
        """Do nothing: no lock is held."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """A lock that is ours until it is released or expires."""

    key: str
    channel: str
    token: str
    ttl_ms: int
    script: Script

    def renew(self) -> bool:
        """Restart the lock's time to live; False if it was lost."""
        return self._run("renew")

    def release(self) -> None:
        """Release the lock and wake its waiters."""
        self._run("release")

    def _run(self, what: str) -> bool:
        try:
            return bool(self.script(keys=[self.key, self.channel], args=[self.token, what, self.ttl_ms]))
        except redis.RedisError:
            return False  # it expires by itself


class RefreshLock(SharedByRedis):
    """One lock per account. *ttl* exceeds a whole refresh; *token* makes a unique owner token."""

    script = files("identity.refresh").joinpath("lock.lua").read_text()

    def __init__(
        self, client: redis.Redis | None, *, ttl: timedelta, token: Callable[[], str], **sharing: Unpack[Sharing]
    ) -> None:
        super().__init__(client, **sharing)
        self._ttl_ms = ttl // timedelta(milliseconds=1)
        self._token = token

    def acquire(self, account: str) -> Held | Busy | Unreachable:
        """Take the lock if it is free, without waiting."""
        if self._script is None:
            return Unreachable()
        token, key = self._token(), self._key(account)
        taken = self._reach(lambda client: bool(client.set(key, token, nx=True, px=self._ttl_ms)))
        if taken is None:
            return Unreachable()
        if not taken:
            return Busy()
        return Held(key=key, channel=self._channel(account), token=token, ttl_ms=self._ttl_ms, script=self._script)

    def wait(self, account: str, *, within: timedelta) -> bool:
        """Return once the lock may be free: it was released, has expired, or *within* has passed.

        False if Redis is unreachable: the caller must pause before it asks again, or it would spin.
        """
        if self._client is None:
            return False
        end = time.monotonic() + within.total_seconds()
        try:
            with self._client.pubsub() as listener:  # type: ignore[no-untyped-call]
                listener.subscribe(self._channel(account))
                while (left := end - time.monotonic()) > 0:
                    message = listener.get_message(timeout=left)
                    if message is None or message["type"] == "message":
                        return True
                    # Subscribed: no release is missed from here on. Check whether one came before.
                    expires_ms = self._client.pttl(self._key(account))
                    if expires_ms < 0:  # gone
                        return True
                    end = min(end, time.monotonic() + expires_ms / 1000)
        except redis.RedisError:
            return False
        return True

    def _key(self, account: str) -> str:
        return f"{self._prefix}refresh:{account}"

    def _channel(self, account: str) -> str:
        return f"{self._prefix}refreshed:{account}"
