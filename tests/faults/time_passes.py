"""The patience of production, made to run out: a bell's thirty seconds, a claim's rest. Slow tests wait for them."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import update

from pipeline.tables import jobs
from pipeline.throttle.budget import GUESSED_WINDOW
from tests.system.rig import System
from tests.waiting import PATIENCE

# Seconds. What a worker that was killed had drawn on a budget counts as on its way, and so does what was answered after
# the store's last copy of its data: others wait for it until a guessed window later, when it is forgotten.
AWHILE = PATIENCE / 2 + GUESSED_WINDOW.total_seconds()


def lapse_bells(system: System) -> None:
    """A bell that nobody has answered by now is lost."""
    _lapse(system, "rung_until")


def lapse_claims(system: System) -> None:
    """Who has a job now has had it for too long."""
    _lapse(system, "claimed_until")


def _lapse(system: System, column: str) -> None:
    lapsed = update(jobs).where(jobs.c[column].is_not(None)).values({column: datetime.now(UTC)})
    system.runtime.database.write(lambda c: c.execute(lapsed))
