"""Follow jobs as they move: report changes since the last look in the order they were seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, or_, select, true

from pipeline.ledger.paging import Record, rows_of
from pipeline.states import ENDED, JobState, StepState
from pipeline.tables import jobs, steps
from pipeline.views.tenant_views import STEPS

MOST = 2_000  # unfinished jobs followed at once; of more, the newest
_LATE = timedelta(seconds=30)  # a job's time is taken before its commit, so an older one may still appear
_JOB = (
    *(jobs.c.id, jobs.c.tenant_id, jobs.c.workflow, jobs.c.state, jobs.c.wait, jobs.c.reason),
    *(jobs.c.created_at, jobs.c.finished_at),
)
_STEPS = STEPS.order_by(steps.c.opened_at, steps.c.position)

Face = tuple[str, str | None, str | None]  # the parts of a job whose change is reported


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A change of state of a job, or of one of its steps, since the last look."""

    job: Record
    step: Record | None = None

    @property
    def at(self) -> datetime | None:
        """When it entered that state, if recorded; possibly long before the look."""
        of = self.job if self.step is None else self.step
        named = "finished_at" if self.step is None else "opened_at" if of["state"] == StepState.OPEN else "closed_at"
        at: datetime | None = of[named]
        return at


@dataclass(kw_only=True)
class _Seen:
    """A job as last reported."""

    created_at: datetime
    face: Face | None = None
    steps: dict[str, str] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return self.face is not None and self.face[0] in ENDED


class Following:
    """The view of one watcher: all jobs, those of one tenant or workflow, or a single job."""

    def __init__(
        self, *, since: datetime, tenant: str | None = None, workflow: str | None = None, job: str | None = None
    ) -> None:
        self._since = since
        self._single = job is not None
        equals = ((jobs.c.id, job), (jobs.c.tenant_id, tenant), (jobs.c.workflow, workflow))
        self._wanted = and_(true(), *(column == value for column, value in equals if value is not None))
        self._seen: dict[str, _Seen] = {}
        self._first = True

    def look(self, connection: Connection) -> list[Moved]:
        """Return the moves since the last look; on the first look, the current states of unfinished jobs."""
        found = self._found(connection)
        for job in found:
            self._seen.setdefault(job["id"], _Seen(created_at=job["created_at"]))
        moved = [job for job in found if self._seen[job["id"]].face != _face(job)]
        busy = [job for job in found if job["state"] in (JobState.RUNNING, JobState.STOPPING)]
        of = {job["id"]: job for job in (*moved, *busy)}
        taken = rows_of(connection, _STEPS.where(steps.c.job_id.in_(list(of))))
        told = list(self._told(moved, of, taken))
        self._forget(found)
        self._first = False
        return told

    def _found(self, connection: Connection) -> list[Record]:
        """Return the jobs to compare, oldest first."""
        which: ColumnElement[bool] = self._wanted
        if not self._single:
            known = jobs.c.finished_at.is_(None) if self._first else jobs.c.id.in_(list(self._seen))
            which = and_(which, or_(jobs.c.created_at >= self._since, known))
        newest = select(*_JOB).where(which).order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
        if self._first:
            newest = newest.limit(MOST)
        return rows_of(connection, newest)[::-1]

    def _told(self, moved: Sequence[Record], of: Mapping[str, Record], taken: Sequence[Record]) -> Iterator[Moved]:
        for job in moved:
            self._seen[job["id"]].face = _face(job)
            if job["state"] not in ENDED:
                yield Moved(job=job)
        for step in taken:
            known = self._seen[step["job_id"]].steps
            if known.get(step["id"]) != step["state"]:
                known[step["id"]] = step["state"]
                yield Moved(job=of[step["job_id"]], step=step)
        yield from (Moved(job=job) for job in moved if job["state"] in ENDED)  # after the steps that led there

    def _forget(self, found: Sequence[Record]) -> None:
        """Drop ended jobs that a query would not find again, and the oldest ones beyond the limit."""
        if found:
            self._since = max(self._since, found[-1]["created_at"] - _LATE)
        old = [id for id, one in self._seen.items() if one.created_at < self._since]
        over = {id for id in old if self._seen[id].over}
        for id in (*over, *[id for id in old if id not in over][:-MOST]):
            del self._seen[id]


def _face(job: Record) -> Face:
    return (job["state"], job["wait"], job["reason"])
