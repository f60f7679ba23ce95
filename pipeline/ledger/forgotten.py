"""Jobs and deliveries removed entirely by retention, and the errors for their ids."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, exists, func, select

from identity.audit.tables import audit
from identity.errors import BadInput
from identity.sql.columns import database_now
from identity.sql.rows import insert_or
from pipeline.tables import forgotten

JOBS, DELIVERIES = "jobs", "deliveries"
_SETTING = {JOBS: "ASWHOM_KEEP_JOBS", DELIVERIES: "ASWHOM_KEEP_DELIVERIES"}
_OLD = {JOBS: "jobs that ended", DELIVERIES: "deliveries that came"}


def remember_forgotten(connection: Connection, what: str, *, before: datetime) -> None:
    """Record, in the transaction that removes some, that rows from before *before* may be gone."""
    row = insert_or(connection, forgotten).values(what=what, since=database_now(), before=before)
    latest = func.max if connection.dialect.name == "sqlite" else func.greatest
    further = {"before": latest(forgotten.c.before, row.excluded.before)}
    connection.execute(row.on_conflict_do_update(index_elements=["what"], set_=further))


def no_job(connection: Connection, id: str) -> BadInput:
    """Return the error that no job has this id, or that retention has removed it."""
    if (gone := _gone(connection, JOBS)) is None:
        return BadInput(f"there is no job {id}: `aswhom jobs list` shows them")
    if connection.execute(select(exists().where(audit.c.job_id == id))).scalar_one():
        return BadInput(
            f"job {id} was forgotten by retention: {gone}. `aswhom audit search --job {id}` has its records"
        )
    return BadInput(f"there is no job {id}: `aswhom jobs list` shows them. It may have been forgotten: {gone}")


def no_delivery(connection: Connection, id: str) -> BadInput:
    """Return the error that no delivery has this id; if retention removes deliveries, with since when and which."""
    there_is_none = f"there is no delivery {id}: `aswhom deliveries list` shows them"
    gone = _gone(connection, DELIVERIES)
    return BadInput(there_is_none if gone is None else f"{there_is_none}. It may have been forgotten: {gone}")


def _gone(connection: Connection, what: str) -> str | None:
    """Return in words which were removed and since when; None: none yet. The setting may have been changed since."""
    row = connection.execute(select(forgotten).where(forgotten.c.what == what)).one_or_none()
    if row is None:
        return None
    which = f"{_OLD[what]} before {row.before:%Y-%m-%d} were, and no later ones"
    return f"{which} ({_SETTING[what]}, since {row.since:%Y-%m-%d})"
