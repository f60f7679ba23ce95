"""The ways in which a run ends before its function returns.

These derive from BaseException, so that a workflow's `except Exception` cannot swallow them. Only the worker catches
them.
"""

from __future__ import annotations

from datetime import timedelta

from pipeline.states import JobState


class Interruption(BaseException):
    """The run ends here."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RunEnded(Interruption):
    """The ledger already moved the job (parked, stopped, given up, refused by the rule), or another worker has it.

    *moved* is the state that this run's own transaction moved it to; None: it moved nothing.
    """

    def __init__(self, reason: str, *, moved: JobState | None = None) -> None:
        super().__init__(reason)
        self.moved = moved


class RunAgain(Interruption):
    """The job goes back to the queue for *delay*; no run is spent.

    *waits_for*, if given, begins or continues a wait of its step, which is over after *expires_in*.
    """

    def __init__(
        self, reason: str, *, delay: timedelta, waits_for: str | None = None, expires_in: timedelta = timedelta()
    ) -> None:
        super().__init__(reason)
        self.delay = delay
        self.waits_for = waits_for
        self.expires_in = expires_in


class UpstreamAway(RunAgain):
    """The upstream of the job's step is away: the job waits in the ledger for *delay*, then tries again."""


class AskOperator(Interruption):
    """The outcome of a step is unknown and cannot be looked up, so the job waits for a person's word."""
