"""The interval and the deadline of each duty of housekeeping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from pipeline.model import HEARTBEAT

_SHORTEST = timedelta(minutes=1)  # no operator needs to know sooner


@dataclass(frozen=True, kw_only=True)
class Rhythm:
    """The schedule of a duty: a tick *every* interval, which is stuck if not done by *deadline*.

    *outward*: it calls services other than the ledger and the broker, and does nothing while the installation is held.
    """

    every: timedelta
    deadline: timedelta
    outward: bool = False

    @property
    def silence(self) -> timedelta:
        """Return the longest time between two heartbeats of a duty that runs in time."""
        return self.every + self.deadline + HEARTBEAT


def silence_of(duty: str) -> timedelta:
    """Return how long a duty may be silent; for one known only to another version, the usual minimum."""
    return max(_SHORTEST, RHYTHMS[duty].silence) if duty in RHYTHMS else _SHORTEST


def _each(every: float, *, deadline: float = 30, outward: bool = False) -> Rhythm:
    return Rhythm(every=timedelta(seconds=every), deadline=timedelta(seconds=deadline), outward=outward)


#: By the duty's name.
RHYTHMS: Mapping[str, Rhythm] = {
    "dispatch": _each(0.25),
    "reclaim": _each(1),
    "wake": _each(0.25),
    "settle-attempts": _each(1),
    "settle-refreshes": _each(5, deadline=120),
    "keep-alive": _each(5, deadline=180, outward=True),
    "revocations": _each(1, deadline=60),
    "signals": _each(1),
    "catch-up": _each(60, deadline=600, outward=True),
    "withdrawals": _each(1, deadline=180, outward=True),
    "leftovers": _each(1, deadline=180, outward=True),
    "end-approvals": _each(5),
    "tell-approvals": _each(1),
    "seal-audit": _each(1),
    "prune": _each(30),
    "measure": _each(5),
    "measure-bells": _each(5),
    "measure-lines": _each(15),
    "measure-withdrawals": _each(5),
    "measure-schedules": _each(5),
    "redis-mark": _each(15),
}
