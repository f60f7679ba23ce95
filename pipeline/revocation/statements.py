"""Bulk statement of a revocation: finds, locks and moves many jobs at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, Row, Select, bindparam, case, func, null, update

from identity.sql.columns import database_now
from identity.sql.prepared import Prepared
from pipeline.jobs import scope_sets
from pipeline.jobs.moves import WAITS_NO_MORE
from pipeline.states import JOB_MOVES, JobState
from pipeline.tables import jobs


def reach_jobs(
    connection: Connection, revocation: Row[Any], digest: str, *, since: int, limit: int, waits: bool
) -> Sequence[Row[Any]]:
    """Cancel, or tell to stop, up to *limit* jobs of the set *digest* accepted before the *revocation*.

    Takes the first jobs from ledger number *since* on; the next call passes the greatest number reached. Otherwise
    PostgreSQL would scan past every job reached before, until it is vacuumed. Jobs locked by other transactions are
    skipped, unless it *waits* for them. Jobs are locked in order of acceptance, so that two revocations of the same
    jobs cannot deadlock.

    Returns the new `id`, `pattern`, `state` and `accepted` of each.
    """
    values = {
        "digest": digest,
        "since": since,
        "before": revocation.number,
        "asked": limit,
        "why": f"{revocation.kind} revoked: {revocation.reason}",
        "by": revocation.id,
    }
    return _reaching(connection.dialect.name, waits=waits).run(connection, values).all()


@cache
def _reaching(dialect: str, *, waits: bool) -> Prepared:
    found = (
        scope_sets.jobs_of(before=bindparam("before"))
        .with_only_columns(jobs.c.id)
        .where(jobs.c.scopes_sha256 == bindparam("digest"), jobs.c.accepted >= bindparam("since"))
        .order_by(jobs.c.accepted)
        .limit(bindparam("asked", type_=Integer))
        .with_for_update(skip_locked=not waits)
    )
    moves = {source: JOB_MOVES.check(source, to) for source, to in scope_sets.REACHED.items()}
    runs = jobs.c.state == JobState.RUNNING  # and goes on until its next step
    moved = update(jobs).values(
        **WAITS_NO_MORE,
        state=case(moves, value=jobs.c.state),
        claimed_until=case((runs, jobs.c.claimed_until), else_=null()),
        finished_at=case((runs, null()), else_=database_now()),
        reason=bindparam("why"),
        revocation_id=bindparam("by"),
    )
    moved = moved.where(_is_among(found, dialect))
    return Prepared(moved.returning(jobs.c.id, jobs.c.pattern, jobs.c.state, jobs.c.accepted))


def _is_among(found: Select[Any], dialect: str) -> ColumnElement[bool]:
    if dialect == "postgresql":  # a join would read all jobs to find some hundred while there are few
        return jobs.c.id == func.any(func.array(found.scalar_subquery()))
    return jobs.c.id.in_(found)
