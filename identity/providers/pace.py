"""The rate limit of one client registration at its token endpoint, as data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True)
class Pace:
    """At most *requests* in any window of length *per*, up to *burst* of them at once."""

    requests: int
    per: timedelta
    burst: int

    def __post_init__(self) -> None:
        if not 1 <= self.burst < self.requests:
            raise ValueError(
                f"a burst of {self.burst} does not fit {self.requests} requests: at least 1, fewer than all"
            )

    @property
    def interval(self) -> timedelta:
        """The time between requests once the burst is spent; a burst and what follows never exceed *requests*."""
        return self.per / (self.requests - self.burst)


CAUTIOUS = Pace(requests=600, per=timedelta(minutes=5), burst=60)
