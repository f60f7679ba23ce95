"""A job as a trial shows it to the author of a workflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from pipeline.states import ENDED, FOR_A_PERSON
from pipeline.tables import jobs


@dataclass(frozen=True, kw_only=True)
class TrialJob:
    """A job after its last run."""

    id: str
    workflow: str
    state: str  # queued, running, waiting, done, cancelled or dead
    wait: str | None  # what a waiting job waits for, for example time, consent or approval
    reason: str  # why it waits or has ended, for a person to read
    event: Mapping[str, Any]  # the event that started it

    @property
    def at_rest(self) -> bool:
        """True if it has ended or waits for a person."""
        return self.state in ENDED or self.wait in FOR_A_PERSON


def read_jobs(connection: Connection) -> list[TrialJob]:
    """Return all jobs, oldest first."""
    columns = (jobs.c.id, jobs.c.workflow, jobs.c.state, jobs.c.wait, jobs.c.reason, jobs.c.event)
    rows = connection.execute(select(*columns).order_by(jobs.c.accepted)).mappings()
    return [TrialJob(**{**row, "reason": row["reason"] or ""}) for row in rows]
