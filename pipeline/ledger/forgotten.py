"""What retention has forgotten whole: how far it came, and what is said of an id that nothing has any more."""

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
    """State, in the transaction in which some of them go, that those from before then may be gone."""
    row = insert_or(connection, forgotten).values(what=what, since=database_now(), before=before)
    latest = func.max if connection.dialect.name == "sqlite" else func.greatest
    further = {"before": latest(forgotten.c.before, row.excluded.before)}
    connection.execute(row.on_conflict_do_update(index_elements=["what"], set_=further))


def no_job(connection: Connection, id: str) -> BadInput:
    """That there is no job of this id; where retention has forgotten it, that it did."""
    if (gone := _gone(connection, JOBS)) is None:
        return BadInput(f"there is no job {id}: `aswhom jobs list` shows them")
    if connection.execute(select(exists().where(audit.c.job_id == id))).scalar_one():
        return BadInput(
            f"job {id} was forgotten by retention: {gone}. `aswhom audit search --job {id}` has its records"
        )
    return BadInput(f"there is no job {id}: `aswhom jobs list` shows them. It may have been forgotten: {gone}")


def no_delivery(connection: Connection, id: str) -> BadInput:
    """That there is no delivery of this id; where such are forgotten, since when and which."""
    there_is_none = f"there is no delivery {id}: `aswhom deliveries list` shows them"
    gone = _gone(connection, DELIVERIES)
    return BadInput(there_is_none if gone is None else f"{there_is_none}. It may have been forgotten: {gone}")


def _gone(connection: Connection, what: str) -> str | None:
    """Which are forgotten and since when, in words; None: none was yet."""
    row = connection.execute(select(forgotten).where(forgotten.c.what == what)).one_or_none()
    if row is None:
        return None
    return f"since {row.since:%Y-%m-%d}, {_OLD[what]} before {row.before:%Y-%m-%d} are ({_SETTING[what]})"
