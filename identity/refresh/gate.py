"""The gate before every token endpoint: its pace, the pauses it asked for, and a breaker for when it is down.

One gate a provider connection and address, shared by all workers through Redis. Without Redis each process has its
own, so that together they may ask more often than the pace allows. It is kept by provider connection, because providers
count by client, and because one tenant's registration must not be able to close another's gate.

Nobody sleeps at a gate: whoever is told to wait has a place in its line (`identity/refresh/line.py`), and comes back by
`due_at` when its turn is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from importlib.resources import files
from typing import Self

import redis

from identity.metrics import TOKEN_REQUESTS
from identity.model import Credential, ProviderConnection
from identity.redis_rest import RedisRest
from identity.refresh.endpoint_state import EndpointState
from identity.refresh.line import LATE, LONGEST, UNUSED_TURNS, Who
from identity.refresh.pace import Pace

_SCRIPT = files("identity.refresh").joinpath("gate.lua").read_text()
_MICROSECOND = timedelta(microseconds=1)
_NO_PACE = 1_000_000_000_000_000  # so many at once, a microsecond apart, that no request waits for another

#: Of the burst: what people who connect leave to whoever has to ask once more, as where the first of two secrets is
#: refused; what a step's refresh leaves to people; and what refreshes ahead of need, which take no place, leave to all.
CONNECT_KEEPS, STEP_KEEPS, AHEAD_KEEPS = 0.05, 0.2, 0.5
_NOBODY = Who()
#: Why no token is asked for, as whoever looks at what waits reads it, beside when it is due.
HELD_BACK = "requests to its token endpoint are held back for now, and it stands in line for its turn"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One address at which one provider connection asks for tokens."""

    connection: str
    url: str

    @classmethod
    def of(cls, owner: ProviderConnection, credential: Credential) -> Self:
        """The endpoint that gives the tokens of an account with that kind of credential."""
        return cls.among(owner.id, credential, api_url=owner.api_url, token_url=owner.token_url)

    @classmethod
    def among(cls, connection: str, credential: Credential, *, api_url: str, token_url: str) -> Self:
        """The endpoint, by the connection's addresses. Installations are counted together: their paths differ."""
        return cls(connection=connection, url=api_url if credential is Credential.INSTALLATION else token_url)

    @classmethod
    def asked_by_nobody(cls, url: str) -> Self:
        """One that is asked without saying who asks, and counts by the address that requests come from."""
        return cls(connection="-", url=url)

    def __str__(self) -> str:
        return f"{self.connection}:{sha256(self.url.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, kw_only=True)
class Breaker:
    """When a failing endpoint is left alone, and for how long. Then one probe goes, and the others wait for it."""

    threshold: int = 5  # failures in a row: no connection, no answer, or 5xx
    first: timedelta = timedelta(seconds=10)
    longest: timedelta = timedelta(minutes=5)  # every opening in a row lasts twice as long as the one before
    probe: timedelta = timedelta(seconds=30)  # longer than an exchange: a probe that died is not waited for any longer


class Gate:
    """Says when a token endpoint may be asked. One for all threads.

    *client* None, or away: it counts for this process alone, by *monotonic* in seconds. *rest*: whether it is away, as
    all know who ask that Redis.
    """

    def __init__(
        self,
        client: redis.Redis | None,
        *,
        breaker: Breaker | None = None,
        prefix: str = "aswhom:",
        monotonic: Callable[[], float] = time.monotonic,
        rest: RedisRest | None = None,
    ) -> None:
        self._client = client
        self._script = client.register_script(_SCRIPT) if client is not None else None
        self._breaker = breaker or Breaker()
        self._prefix = prefix
        self._monotonic = monotonic
        self._rest = rest or RedisRest(monotonic=monotonic)
        self._own: dict[str, EndpointState] = {}
        self._lock = threading.Lock()

    def enter(self, endpoint: Endpoint, pace: Pace, *, keep: float = 0.0, who: Who = _NOBODY) -> timedelta | None:
        """None: ask now, it is counted. Otherwise how long to wait before trying again: *who* has that place in line.

        *keep* is the share of the burst to be left for others, from 0 to 1: `AHEAD_KEEPS` for what nobody waits for.
        """
        wait = self._ask("enter", endpoint, pace, keep, who)
        TOKEN_REQUESTS.labels("waits" if wait else "passes").inc()
        return wait

    def look(self, endpoint: Endpoint, pace: Pace, *, keep: float = 0.0, who: Who = _NOBODY) -> timedelta | None:
        """What `enter` would say; nothing is counted. Where it says to wait, *who* has that place in line."""
        return self._ask("look", endpoint, pace, keep, who)

    def leave(self, endpoint: Endpoint, who: Who) -> None:
        """*who* will not come back: it has no place in line any more."""
        if self._shared(endpoint, "leave", who.name) is None:
            with self._lock:
                self._state(endpoint).line.leave(who)

    def waiting(self, endpoints: Sequence[Endpoint]) -> list[int]:
        """How many stand in line at each, in one round trip; who left it is counted until somebody asks there."""
        if self._client is not None and not self._rest.is_away:
            asking = self._client.pipeline(transaction=False)
            for endpoint in endpoints:
                asking.zcard(self._keys(endpoint)[1])
            try:
                return [int(length) for length in asking.execute()]
            except redis.RedisError:
                self._rest.begin()
        with self._lock:
            return [self._state(endpoint).line.length(self._now()) for endpoint in endpoints]

    def paused(self, endpoint: Endpoint) -> timedelta | None:
        """How long nobody is to ask, whatever the pace: it asked for a pause, or its breaker is open."""
        return self._wait("look", endpoint, interval=1, burst=_NO_PACE, fewest=1, who=_NOBODY)

    def answered(self, endpoint: Endpoint) -> None:
        """The endpoint answered like something that works, whatever it said: the breaker closes."""
        if self._shared(endpoint, "answered") is None:
            with self._lock:
                self._state(endpoint).answered()

    def failed(self, endpoint: Endpoint) -> None:
        """The endpoint gave no connection, no answer, or a server's error: enough of them in a row open the breaker."""
        breaker = self._breaker
        first, longest = breaker.first // _MICROSECOND, breaker.longest // _MICROSECOND
        if self._shared(endpoint, "failed", breaker.threshold, first, longest) is None:
            with self._lock:
                state = self._state(endpoint)
                state.failed(self._now(), threshold=breaker.threshold, first=first, longest=longest)

    def pause(self, endpoint: Endpoint, duration: timedelta) -> None:
        """The endpoint asked for a pause (RFC 9110 §10.2.3, RFC 6585 §4): nobody asks before its end."""
        if self._shared(endpoint, "pause", duration // _MICROSECOND) is None:
            with self._lock:
                self._state(endpoint).pause(self._now(), duration // _MICROSECOND)

    def _ask(self, what: str, endpoint: Endpoint, pace: Pace, keep: float, who: Who) -> timedelta | None:
        interval, burst, fewest = pace.interval // _MICROSECOND, _at_once(pace, keep), _at_once(pace, STEP_KEEPS)
        return self._wait(what, endpoint, interval=interval, burst=burst, fewest=fewest, who=who)

    def _wait(
        self, what: str, endpoint: Endpoint, *, interval: int, burst: int, fewest: int, who: Who
    ) -> timedelta | None:
        probe, unused = self._breaker.probe // _MICROSECOND, LATE + UNUSED_TURNS * interval
        arguments = interval, burst, probe, who.name, int(who.rank), LATE, LONGEST, fewest, unused
        wait = self._shared(endpoint, what, *arguments)
        if wait is None:
            with self._lock:
                state, now = self._state(endpoint), self._now()
                if what == "enter":
                    wait = state.enter(now, interval=interval, burst=burst, fewest=fewest, probe=probe, who=who)
                else:
                    wait = state.look(now, interval=interval, burst=burst, fewest=fewest, who=who)
        return timedelta(microseconds=wait) if wait else None

    def _shared(self, endpoint: Endpoint, *arguments: str | int) -> int | None:
        """What Redis says; None: there is none now."""
        if self._script is None or self._rest.is_away:
            return None
        try:
            return int(self._script(keys=self._keys(endpoint), args=list(arguments)))
        except redis.RedisError:
            self._rest.begin()
            return None

    def _keys(self, endpoint: Endpoint) -> list[str]:
        key = f"{self._prefix}endpoint:{endpoint}"
        return [key, f"{key}:line", f"{key}:back"]

    def _state(self, endpoint: Endpoint) -> EndpointState:
        return self._own.setdefault(str(endpoint), EndpointState())

    def _now(self) -> int:
        return int(self._monotonic() * 1_000_000)


def _at_once(pace: Pace, keep: float) -> int:
    return max(1, int(pace.burst * (1 - keep)))
