"""The rule of retries: which attempts of a step count, for how long others are free, and whether another follows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Retry:
    """An attempt that did not settle its step, and what that means for the next.

    Of each step a limited number of attempts counts, since its job's acceptance or replay. A failure is excused if its
    upstream is away, or says when to come back. Such failures begin a wait, and are free until it is over. One that
    turns a wait into another counts, so an upstream that alternates ends the step by the limit. Waits are named by the
    `waits_for` of their job, which keeps their date.
    """

    limit: int
    counted: int  # earlier attempts that counted
    waits_out: str | None  # the wait of the step until now
    over: bool  # that wait has lasted as long as it may
    waits_for: str | None  # the wait that this failure begins or continues; None: none
    excused: bool  # False with *waits_for*: it counts, and its author's patience lets another follow

    @property
    def in_time(self) -> bool:
        """True if this failure is met by a wait that is not over."""
        goes_on = self.waits_out is None or (self.waits_out == self.waits_for and not self.over)
        return self.waits_for is not None and goes_on

    @property
    def is_free(self) -> bool:
        return self.excused and self.in_time

    @property
    def follows(self) -> bool:
        """True if another attempt follows."""
        return self.in_time or self.counted + 1 < self.limit
