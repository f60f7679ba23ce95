"""The services shared by the steps of every run; opened once per process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from identity.backoff import doubled
from identity.capability.issuer import Issuer
from identity.crash_points import none_reached
from identity.ids import Ids
from identity.keys.vault import Vault
from identity.minting.confined import Confiner
from identity.policy.ledger import Policies
from identity.refresh.coordinator import Coordinator
from identity.sql.persistent_write import PersistentWrite
from identity.sql.store import Store
from pipeline.throttle.breaker import Breakers
from pipeline.throttle.budget import Budgets
from pipeline.throttle.in_flight import InFlight
from pipeline.upstream import Upstream


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """Time limits and numbers of attempts."""

    send_within: timedelta = timedelta(seconds=5)  # from before the opening's commit to the socket
    call_deadline: timedelta = timedelta(seconds=20)  # total, of one HTTP call
    attempts: int = 10
    backoff: timedelta = timedelta(seconds=1)
    backoff_cap: timedelta = timedelta(minutes=5)
    yield_after: timedelta = timedelta(seconds=30)
    # if the upstream is away or asks for a later retry: see `waits_at_most`
    upstream_wait: timedelta = timedelta(days=1)
    silent_calls: int = 16  # half of a worker's threads: the most that a host that does not answer may hold
    consent_wait: timedelta = timedelta(days=14)  # how long a job waits for a person to connect
    capability_lifetime: timedelta = timedelta(seconds=120)  # of a capability token, at most three minutes

    @property
    def longest_probe(self) -> timedelta:
        """The time in which a call ends and its outcome is stored, and its host's breaker is told.

        A probe's failure counts only until another probe may go, so no call may outlast this.
        """
        return self.send_within + self.call_deadline + PersistentWrite.within

    def waits_at_most(self, patience: timedelta) -> timedelta:
        """Return how long a step waits for its upstream without spending attempts; *patience* is set by its author.

        Patience only lengthens: it counts as no less than the time that all attempts together take.
        """
        pauses = (doubled(self.backoff, number, longest=self.backoff_cap) for number in range(self.attempts - 1))
        return max(patience, sum(pauses, timedelta())) if patience else self.upstream_wait


def _never() -> bool:
    """Stand in for a process that is never told to stop."""
    return False


@dataclass(frozen=True, kw_only=True)
class Services:
    """The parts with which a step is carried out."""

    store: Store
    vault: Vault
    coordinator: Coordinator
    upstream: Upstream
    issuer: Issuer
    ids: Ids
    settings: StepSettings
    # No defaults for these: without them a step would use an account's whole token, or the limits would hold only
    # within one process.
    confiner: Confiner
    budgets: Budgets
    breakers: Breakers
    in_flight: InFlight
    policies: Policies = field(default_factory=Policies)
    persistent: PersistentWrite = field(default_factory=PersistentWrite)  # for outcomes that only this process knows
    stopping: Callable[[], bool] = _never  # True once this process was told to stop: its runs begin no further step
    reached: Callable[[str], None] = none_reached  # named crash points, for the tests that kill
