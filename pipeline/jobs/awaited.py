"""What jobs wait for: the names of what is awaited, and waking the jobs that wait for it."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, null, update

from identity.model import AccountKey
from identity.sql.columns import database_now
from identity.sql.prepared import Prepared
from pipeline.jobs.claims import ClaimedJob
from pipeline.jobs.moves import moving_job
from pipeline.states import JobState
from pipeline.tables import jobs

_ACCOUNT = "account:"  # prefix of `waits_for` when a job waits for consent

# Every job runs these statements, so each is built once.
# Only from WAITING. One call may wake many: every job of a service account waits for the same consent.
_WAKE = Prepared(
    moving_job(
        jobs.c.waits_for == bindparam("awaited"), JobState.QUEUED, source=JobState.WAITING, due_at=database_now()
    ).returning(jobs.c.id)
)
_CAME = Prepared(
    update(jobs)
    .where(jobs.c.id == bindparam("job"), jobs.c.fence == bindparam("held"), jobs.c.state == JobState.RUNNING)
    .values(waits_for=null(), expires_at=null())
)


def consent_of(key: AccountKey) -> str:
    """Return the `waits_for` of a job that waits for consent to this account."""
    return f"{_ACCOUNT}{key}"


def upstream_of(step: str) -> str:
    """Return the `waits_for` of a job while this step waits for its upstream, for whatever reason."""
    return f"upstream/{step}"


def consenting(waits_for: str | None) -> AccountKey | None:
    """Return the account whose consent *waits_for* names; None if it names something else."""
    if waits_for is None or not waits_for.startswith(_ACCOUNT):
        return None
    return AccountKey.parse(waits_for.removeprefix(_ACCOUNT))


def wake(connection: Connection, waits_for: str) -> Sequence[str]:
    """Queue every job that waits for *waits_for*. Call it in the transaction that ends the wait."""
    return _WAKE.run(connection, {"awaited": waits_for}).scalars()


def has_come(connection: Connection, job: ClaimedJob) -> None:
    """Clear what a running job was parked for, because it has come; a later wait for the same starts afresh."""
    _CAME.run(connection, {"job": job.id, "held": job.fence})
