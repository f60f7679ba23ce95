"""The rule of retries: which attempts of a step count, for how long others are free, and whether another follows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Retry:
    """An attempt that did not settle its step, and what that means for the next.

    A limited number of a step's attempts counts, since its job's acceptance or replay. A step waits for its upstream
    once: from the first failure that means an outage or says when to come back, for a limited time. Until then each
    failure is free, whatever it says, because an upstream that comes back answers now this, now that. So is a search
    that was answered. After that time each counts, and a failure that means an outage is the last. Only an answer about
    the account, or a wait for something else, ends the wait earlier; the next one has a time of its own.
    """

    limit: int
    counted: int  # earlier attempts that counted
    waits: bool  # this attempt begins or continues the step's wait for its upstream
    over: bool  # that wait has lasted as long as it may
    outage: bool  # this failure means that the upstream is away
    excused: bool  # False with *waits*: it counts, and its author's patience lets another follow

    @property
    def in_time(self) -> bool:
        return self.waits and not self.over

    @property
    def is_free(self) -> bool:
        return self.excused and self.in_time

    @property
    def follows(self) -> bool:
        """True if another attempt follows."""
        return self.in_time or (not self.outage and self.counted + 1 < self.limit)
