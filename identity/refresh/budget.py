"""How long a refresh may take, part by part."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True)
class RefreshBudget:
    """How long each part of a refresh may take. The lock lives longer than all of it."""

    send: timedelta = timedelta(seconds=5)  # from the intent to the first byte
    http: timedelta = timedelta(seconds=20)  # the whole exchange
    store: timedelta = timedelta(seconds=30)  # how long an answer is tried to be stored
    wait: timedelta = timedelta(seconds=40)  # how long a caller waits for another's refresh
    poll: timedelta = timedelta(milliseconds=100)  # between two looks at SQL, where no lock wakes a waiter

    @property
    def lock_ttl(self) -> timedelta:
        return self.send + self.http + self.store + timedelta(seconds=5)
