"""Time limits of the parts of a refresh."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True)
class RefreshBudget:
    """Time limits of each part of a refresh. The lock outlives their sum."""

    send: timedelta = timedelta(seconds=5)  # from the intent to the first byte
    http: timedelta = timedelta(seconds=20)  # the whole exchange
    store: timedelta = timedelta(seconds=30)  # how long storing an answer is retried
    wait: timedelta = timedelta(seconds=40)  # how long a caller waits for another's refresh
    poll: timedelta = timedelta(milliseconds=100)  # between two reads of SQL when no lock wakes a waiter

    @property
    def lock_ttl(self) -> timedelta:
        return self.send + self.http + self.store + timedelta(seconds=5)
