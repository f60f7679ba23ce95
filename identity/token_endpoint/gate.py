"""Rate limit, requested pauses and circuit breaker in front of every token endpoint.

There is one gate per provider connection and address, shared by all workers through Redis. Without Redis each process
has its own, and together they may exceed the pace. The gate belongs to a provider connection because providers count
requests by client, and because one tenant's registration must not be able to close another's gate.

Nobody sleeps at a gate: a caller told to wait has a place in its line (`identity/token_endpoint/line.py`) and comes
back at its job's `due_at`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from importlib.resources import files
from typing import Self, Unpack

import redis

from identity.breaker import Breaker, OwnStates
from identity.metrics import TOKEN_REQUESTS
from identity.model import Credential, ProviderConnection
from identity.providers.pace import Pace
from identity.shared_by_redis import SharedByRedis, Sharing
from identity.token_endpoint.endpoint_state import EndpointState
from identity.token_endpoint.line import LATE, LONGEST, UNUSED_TURNS, Waiter

_MICROSECOND = timedelta(microseconds=1)

#: Shares of the burst kept free. A connecting person leaves room for a second request, as when the first of two secrets
#: is refused; a step's refresh leaves room for people; a refresh ahead of need, which takes no place, leaves it to all.
CONNECT_KEEPS, STEP_KEEPS, AHEAD_KEEPS = 0.05, 0.2, 0.5
_NOBODY = Waiter()
#: The reason shown to people who look at waiting jobs, beside the time at which they are due.
HELD_BACK = "requests to its token endpoint are held back for now, and it stands in line for its turn"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One address at which one provider connection asks for tokens."""

    connection: str
    url: str

    @classmethod
    def of(cls, owner: ProviderConnection, credential: Credential) -> Self:
        """Return the endpoint that issues tokens for this kind of credential."""
        return cls.among(owner.id, credential, api_url=owner.api_url, token_url=owner.token_url)

    @classmethod
    def among(cls, connection: str, credential: Credential, *, api_url: str, token_url: str) -> Self:
        """Return the endpoint by the connection's addresses. Installations are counted together: their paths differ."""
        return cls(connection=connection, url=api_url if credential is Credential.INSTALLATION else token_url)

    @classmethod
    def asked_by_nobody(cls, url: str) -> Self:
        """Return an endpoint for anonymous requests, which the provider counts by source address."""
        return cls(connection="-", url=url)

    def __str__(self) -> str:
        return f"{self.connection}:{sha256(self.url.encode()).hexdigest()[:16]}"


class Gate(SharedByRedis):
    """Decides when a token endpoint may be asked."""

    script = files("identity.token_endpoint").joinpath("gate.lua").read_text()

    def __init__(
        self, client: redis.Redis | None, *, breaker: Breaker | None = None, **sharing: Unpack[Sharing]
    ) -> None:
        super().__init__(client, **sharing)
        self._breaker = breaker or Breaker()
        self._own = OwnStates(EndpointState)

    def enter(self, endpoint: Endpoint, pace: Pace, *, keep: float = 0.0, who: Waiter = _NOBODY) -> timedelta | None:
        """Count a request and return None, or return how long *who* must wait; it then has that place in line.

        *keep* is the share of the burst left to others, from 0 to 1: `AHEAD_KEEPS` if nobody waits for the token.
        """
        wait = self._ask("enter", endpoint, pace, keep, who)
        TOKEN_REQUESTS.labels("waits" if wait else "passes").inc()
        return wait

    def look(self, endpoint: Endpoint, pace: Pace, *, keep: float = 0.0, who: Waiter = _NOBODY) -> timedelta | None:
        """Return what `enter` would, without counting a request. If there is a wait, *who* has that place in line."""
        return self._ask("look", endpoint, pace, keep, who)

    def back(self, endpoint: Endpoint) -> None:
        """Take back an entry whose request was not sent: if it was the probe, another request may be."""
        self._tell(endpoint, "back", alone=lambda state, _: state.back())

    def leave(self, endpoint: Endpoint, who: Waiter) -> None:
        """Give up the place of *who*, which will not come back."""
        self._tell(endpoint, "leave", who.name, alone=lambda state, _: state.line.leave(who))

    def waiting(self, endpoints: Sequence[Endpoint]) -> list[int]:
        """Return the length of each line, in one round trip. Absent callers count until the next request there."""

        def lengths(client: redis.Redis) -> list[int]:
            asking = client.pipeline(transaction=False)
            for endpoint in endpoints:
                asking.zcard(self._keys(endpoint)[1])
            return [int(length) for length in asking.execute()]

        if (found := self._reach(lengths)) is not None:
            return found
        return self._by_itself(lambda now: [self._state(endpoint, now).line.length(now) for endpoint in endpoints])

    def paused(self, endpoint: Endpoint) -> timedelta | None:
        """Return how long the endpoint is closed whatever the pace: it asked for a pause, or its breaker is open."""
        return self._wait(endpoint, "paused", alone=lambda state, now: max(state.shut - now, 0))

    def answered(self, endpoint: Endpoint) -> None:
        """Record that the endpoint works, whatever it answered: the breaker closes."""
        self._tell(endpoint, "answered", alone=lambda state, _: state.answered())

    def failed(self, endpoint: Endpoint, *, took: timedelta) -> None:
        """Record no connection, no answer, or a server error: enough of them in a row open the breaker.

        *took* is how long ago the request was sent, by which a probe is told from a request of before the outage.
        """
        breaker = self._breaker

        def alone(state: EndpointState, now: int) -> None:
            state.failed(now, breaker, took=took // _MICROSECOND)

        self._tell(endpoint, "failed", breaker.threshold, breaker.first, breaker.longest, took, alone=alone)

    def pause(self, endpoint: Endpoint, duration: timedelta) -> None:
        """Close the endpoint for the pause that it asked for (RFC 9110 §10.2.3, RFC 6585 §4)."""
        self._tell(endpoint, "pause", duration, alone=lambda state, now: state.pause(now, duration // _MICROSECOND))

    def _ask(self, what: str, endpoint: Endpoint, pace: Pace, keep: float, who: Waiter) -> timedelta | None:
        interval, burst, fewest = pace.interval // _MICROSECOND, _at_once(pace, keep), _at_once(pace, STEP_KEEPS)
        probe, unused = self._breaker.probe // _MICROSECOND, LATE + UNUSED_TURNS * interval

        def alone(state: EndpointState, now: int) -> int:
            if what == "enter":
                return state.enter(now, interval=interval, burst=burst, fewest=fewest, probe=probe, who=who)
            return state.look(now, interval=interval, burst=burst, fewest=fewest, who=who)

        said = interval, burst, probe, who.name, int(who.rank), LATE, LONGEST, fewest, unused
        return self._wait(endpoint, what, *said, alone=alone)

    def _wait(
        self, endpoint: Endpoint, *said: str | int, alone: Callable[[EndpointState, int], int]
    ) -> timedelta | None:
        wait = self._together(self._keys(endpoint), *said)
        if wait is None:
            wait = self._by_itself(lambda now: alone(self._state(endpoint, now), now))
        return timedelta(microseconds=wait) if wait else None

    def _tell(
        self, endpoint: Endpoint, *what: str | int | timedelta, alone: Callable[[EndpointState, int], object]
    ) -> None:
        if self._together(self._keys(endpoint), *what) is None:
            self._by_itself(lambda now: alone(self._state(endpoint, now), now))

    def _keys(self, endpoint: Endpoint) -> list[str]:
        key = f"{self._prefix}endpoint:{endpoint}"
        return [key, f"{key}:line", f"{key}:back"]

    def _state(self, endpoint: Endpoint, now: int) -> EndpointState:
        state = self._own.at(str(endpoint), now)
        state.see(now)
        return state


def _at_once(pace: Pace, keep: float) -> int:
    return max(1, int(pace.burst * (1 - keep)))
