"""Keep-alive: refreshes tokens ahead of need, and uses grants before their provider expires them as idle.

    claim due grants ─► plan ─► in turns, inside each token endpoint's pace ─► refresh ─► schedule the next look

It decides only *when*. The coordinator decides whether a credential may be presented, and ensures that it is presented
once. Several hosts may run this; a claim only saves them from doing the same work.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from identity.connections.self_hosted import profile_for
from identity.errors import AswhomError, GrantRevoked, ReauthRequired, Unavailable
from identity.failures import Failures
from identity.measuring import measuring
from identity.metrics import KEEPALIVE, KEEPALIVE_DUE, KEEPALIVE_LAG
from identity.providers.profile import Profile
from identity.refresh.keepalive_ledger import Due, Next, NotNow, behind, claim, fair, put_back
from identity.refresh.keepalive_plan import Plan, plan, retry_in
from identity.sql.store import CommitUnknown, Store
from identity.token_endpoint.gate import AHEAD_KEEPS, Endpoint, Gate

REFRESHED = "refreshed"
Refresh = Callable[[Due], int]  # the generation, unchanged if the provider is unavailable; raises as `refresh` does


class Pacing(Protocol):
    """Returns how long a token request that nobody waits for must be deferred at a grant's endpoint, or None."""

    def __call__(self, due: Due, profile: Profile, /) -> timedelta | None: ...


def paced_by(gate: Gate) -> Pacing:
    """Pace by the token endpoint's gate. The coordinator enters it; looking first saves a refresh in vain."""

    def look(due: Due, profile: Profile) -> timedelta | None:
        return gate.look(due.endpoint, profile.pace_of(due.tended.credential), keep=AHEAD_KEEPS)

    return look


@dataclass(frozen=True, kw_only=True)
class KeepaliveSettings:
    """Sizes and time limits of a keep-alive pass."""

    batch: int = 200  # grants per claim
    threads: int = 8  # concurrent refreshes
    within: timedelta = timedelta(seconds=60)  # a pass begins no further refresh after this
    claim: timedelta = timedelta(minutes=5)  # longer than a batch takes
    stopped: timedelta = timedelta(hours=1)  # until a stopped grant is looked at again


class Keepalive:
    """Runs keep-alive passes; one instance per process. Once *stopping* is true, no further refresh begins."""

    def __init__(
        self,
        store: Store,
        refresh: Refresh,
        profiles: Mapping[str, Profile],
        pacing: Pacing,
        *,
        clock: Callable[[], datetime],
        settings: KeepaliveSettings | None = None,
        stopping: Callable[[], bool] = lambda: False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._refresh = refresh
        self._profiles = profiles
        self._pacing = pacing
        self._clock = clock
        self._settings = settings or KeepaliveSettings()
        self._stopping = stopping
        self._monotonic = monotonic

    def run(self) -> int:
        """Run one pass over due grants, batch by batch; return how many were refreshed.

        Raises an ExceptionGroup at the end of unexpected errors, and of the ledger's failure if it follows them.
        Raises Unavailable or CommitUnknown if the ledger's failure is the only error.
        """
        end = self._monotonic() + self._settings.within.total_seconds()

        def over() -> bool:
            """Checked within a batch as well: if a provider hangs, grants not begun go back and others get a thread."""
            return self._stopping() or self._monotonic() >= end

        one_pass = _Pass(self._refresh, self._profiles, self._pacing, self._clock, self._settings, over)
        # Also raised together with an error that ends the pass: they are reported nowhere else.
        with one_pass.failures.told("grants that could not be kept alive"), measuring(KEEPALIVE_DUE, KEEPALIVE_LAG):
            with ThreadPoolExecutor(self._settings.threads, thread_name_prefix="keepalive") as threads:
                while not over() and (batch := self._claim()):
                    self._put_back(one_pass.go(batch, threads))
            self._measure()
        return one_pass.refreshed

    def _claim(self) -> list[Due]:
        now = self._clock()
        limit = self._settings.batch
        until = now + self._settings.claim
        try:
            return self._store.write(lambda connection: claim(connection, now=now, until=until, limit=limit))
        except CommitUnknown:
            return []  # claimed or not, they become due again

    def _put_back(self, then: Sequence[tuple[Due, Next]]) -> None:
        self._store.write(lambda connection: put_back(connection, then))

    def _measure(self) -> None:
        now = self._clock()
        number, oldest = self._store.read(lambda connection: behind(connection, now=now))
        KEEPALIVE_DUE.set(number)
        KEEPALIVE_LAG.set((now - oldest).total_seconds() if oldest else 0)


class _Pass:
    """One pass: the token endpoints without room, and how many grants wait for each."""

    def __init__(
        self,
        refresh: Refresh,
        profiles: Mapping[str, Profile],
        pacing: Pacing,
        clock: Callable[[], datetime],
        settings: KeepaliveSettings,
        over: Callable[[], bool],
    ) -> None:
        self.refreshed = 0
        self.failures = Failures()
        self._refresh = refresh
        self._profiles = profiles
        self._pacing = pacing
        self._clock = clock
        self._settings = settings
        self._over = over
        self._full: dict[Endpoint, datetime] = {}  # when each has room again
        self._line: Counter[Endpoint] = Counter()  # how many grants found it full

    def go(self, batch: Sequence[Due], threads: ThreadPoolExecutor) -> list[tuple[Due, Next]]:
        """Process a batch; return when each of its grants is looked at next."""
        now = self._clock()
        then: list[tuple[Due, Next]] = []
        ranks: dict[str, int] = {}
        for due in batch:
            looked = self._look(due, now)
            if isinstance(looked, Next):
                then.append((due, looked))
            else:
                ranks[due.account] = looked.rank
        wanted = fair([due for due in batch if due.account in ranks])
        for due, outcome in zip(wanted, threads.map(self._attempt, wanted), strict=True):
            rank = ranks[due.account]
            if outcome is None:
                then.append((due, self._in_line(due, rank)))
                continue
            name, following = outcome
            KEEPALIVE.labels(due.provider, name).inc()
            self.refreshed += name == REFRESHED
            then.append((due, replace(following, rank=rank)))
        return then

    def _look(self, due: Due, now: datetime) -> Next | Plan:
        """Return a plan that is due, or when to look again."""
        match due.not_now:
            case NotNow.OVER:
                return Next(due=None)
            case NotNow.STOPPED:
                pause = retry_in(due.account, failures=1, asked=self._settings.stopped)
                return Next(due=now + pause, error="it is stopped")
            case NotNow.PAUSED:
                return self._failed(due, "its provider connection is paused")
        if due.provider not in self._profiles:
            return self._failed(due, f"no provider is named {due.provider}")
        planned = plan(due.tended, self._profile(due), now=now)
        if planned is None:
            return Next(due=None)
        return planned if planned.due <= now else Next(due=planned.due, rank=planned.rank)

    def _profile(self, due: Due) -> Profile:
        return profile_for(self._profiles, due)

    def _attempt(self, due: Due) -> tuple[str, Next] | None:
        """Refresh a grant; return the outcome and the next look. None if the endpoint is full or the pass is over."""
        now = self._clock()
        if self._over() or now < self._full.get(due.endpoint, now):
            return None
        if self._is_full(due):
            return None
        try:
            generation = self._refresh(due)
        except Unavailable as busy:
            if self._is_full(due):  # filled meanwhile by other requests, a pause or the breaker
                return None
            return "unavailable", self._failed(due, str(busy), asked=busy.retry_after)
        except ReauthRequired:
            return "needs_reconnect", Next(due=None)
        except GrantRevoked as revoked:
            # Revoked or stopped since the claim; the next look tells which.
            return "revoked", self._failed(due, str(revoked))
        except (AswhomError, CommitUnknown) as error:
            return "failed", self._failed(due, str(error))
        except Exception as failure:  # noqa: BLE001 - raised by `run`: one grant's failure must not hold up the rest
            self.failures.add("account", due.account, failure)
            return "failed", self._failed(due, type(failure).__name__)
        if generation > due.generation:
            return REFRESHED, Next(due=self._clock())  # its commit set a new time as well; look again and plan anew
        if self._is_full(due):
            return None
        return "served", self._failed(due, f"{due.provider} gives no token now")

    def _is_full(self, due: Due) -> bool:
        if (wait := self._pacing(due, self._profile(due))) is not None:
            self._full[due.endpoint] = self._clock() + wait
        return wait is not None

    def _failed(self, due: Due, error: str, *, asked: timedelta = timedelta(0)) -> Next:
        failures = due.failures + 1
        pause = retry_in(due.account, failures=failures, asked=asked)
        return Next(due=self._clock() + pause, failures=failures, error=error[:500])

    def _in_line(self, due: Due, rank: int) -> Next:
        """Stagger waiting grants at the endpoint's pace, so that they are not looked at repeatedly in vain."""
        interval = self._profile(due).pace_of(due.tended.credential).interval
        place = self._line[due.endpoint]
        self._line[due.endpoint] += 1
        room = self._full.get(due.endpoint, self._clock())
        return Next(due=room + place * interval, rank=rank, failures=due.failures)
