"""How a run ends before its function returns.

These derive from BaseException, so that a workflow's `except Exception` cannot swallow them; only the worker catches
them.
"""

from __future__ import annotations

from datetime import timedelta

from pipeline.ledger.jobs import upstream_of
from pipeline.states import JobState


class Interruption(BaseException):
    """The run ends here."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RunEnded(Interruption):
    """The ledger has moved the job already: parked, stopped, given up or refused by the rule; or another has it.

    *moved* is the state this run's own transaction moved it to; None: it moved nothing.
    """

    def __init__(self, reason: str, *, moved: JobState | None = None) -> None:
        super().__init__(reason)
        self.moved = moved


class RunAgain(Interruption):
    """The job goes back to the queue for *delay*; no run is spent."""

    def __init__(self, reason: str, *, delay: timedelta) -> None:
        super().__init__(reason)
        self.delay = delay


class UpstreamAway(RunAgain):
    """The job waits in the ledger for *delay*, since its upstream is away: for that *step* no longer than *expires_in*.

    *over*: that has passed, and it looked in vain once more. Then it is dead; or, where a call of the step is in doubt,
    a person is asked, with the words *asks*.
    """

    def __init__(
        self, reason: str, *, delay: timedelta, step: str, expires_in: timedelta, over: bool, asks: str | None = None
    ) -> None:
        super().__init__(reason, delay=delay)
        self.expires_in = expires_in
        self.over = over
        self.waits_for = upstream_of(step)
        self.asks = asks


class AskOperator(Interruption):
    """What became of a step is not known, and nothing can be looked up: the job waits for a person's word."""
