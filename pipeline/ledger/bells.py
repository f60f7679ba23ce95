"""Outstanding bells: which due jobs may be rung, so that no tenant's backlog keeps another's work out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    null,
    select,
    union_all,
    update,
)

from identity.columns import database_in
from identity.model import AccessPattern
from identity.prepared import Prepared
from identity.tables import tenants
from pipeline.ledger.clock import NOW
from pipeline.model import Bell
from pipeline.tables import IS_QUEUED, jobs

RINGS_FOR = timedelta(seconds=30)  # an unanswered bell is lost after this, and is replaced
FIRST_SHARE = 16  # bells a tenant may have outstanding at once without the dispatcher's say

_QUEUED = (jobs.c.pattern == bindparam("of_pattern")) & (jobs.c.tenant_id == bindparam("tenant")) & IS_QUEUED
_OUTSTANDING = select(func.count()).where(_QUEUED, jobs.c.rung_until > NOW).scalar_subquery()
_ROOM: ColumnElement[int] = bindparam("share") - _OUTSTANDING
_MOST: ColumnElement[int] = bindparam("most")
_UNRUNG = and_(_QUEUED, jobs.c.due_at <= NOW, (jobs.c.rung_until.is_(None)) | (jobs.c.rung_until <= NOW))
# Materialized: PostgreSQL may run a subquery once for each row, and then its limit is no limit.
_DUE = (
    select(jobs.c.id)
    .where(_UNRUNG)
    .order_by(jobs.c.due_at, jobs.c.accepted)
    .limit(case((_ROOM <= 0, 0), (_ROOM < _MOST, _ROOM), else_=_MOST))  # below nothing means no limit to SQLite
    .with_for_update(skip_locked=True)
    .cte("due")
    .prefix_with("MATERIALIZED")
)
_RINGING = (
    update(jobs)
    .where(jobs.c.id.in_(select(_DUE.c.id)))
    .values(rung_until=database_in(RINGS_FOR))
    .returning(jobs.c.id, jobs.c.rung_until)
)
_RING = Prepared(_RINGING.where(jobs.c.rung_until.is_(None)))
_RING_AGAIN = Prepared(_RINGING)

# For a due job that is being accepted. Rung at once if the tenant's share has room and no older due job is unrung;
# else NULL.
RUNG_UNTIL_IF_ROOM = case((and_(_ROOM > 0, ~exists().where(_UNRUNG)), database_in(RINGS_FOR)), else_=null())


def _first_due(pattern: AccessPattern) -> Select[Any]:
    """The pattern, if it has a due job.

    Asked for in the order of the index: asked whether there is any, PostgreSQL expects to meet one soon, and reads the
    whole table for a pattern that has none.
    """
    due = select(jobs.c.id).where(jobs.c.pattern == pattern, IS_QUEUED, jobs.c.due_at <= NOW)
    first = due.order_by(jobs.c.pattern, jobs.c.tenant_id, jobs.c.due_at).limit(1).subquery()
    return select(literal(str(pattern))).select_from(first)


_WITH_DUE_JOBS = Prepared(union_all(*map(_first_due, AccessPattern)))

_OF_TENANT = (jobs.c.pattern == bindparam("of_pattern")) & (jobs.c.tenant_id == tenants.c.id) & IS_QUEUED
# Two index probes a tenant, however long its backlog is.
_TENANTS_WITH_DUE_JOBS = Prepared(
    select(
        tenants.c.id, select(func.count()).where(_OF_TENANT, jobs.c.rung_until > NOW).scalar_subquery().label("rung")
    )
    .where(exists().where(_OF_TENANT, jobs.c.due_at <= NOW))
    .order_by(tenants.c.id)
)


def ring_due(
    connection: Connection,
    tenant: str,
    pattern: AccessPattern | str,
    *,
    share: int = FIRST_SHARE,
    most: int = 1,
    again: bool = False,
) -> tuple[Bell, ...]:
    """Mark the oldest due jobs as rung, until *share* bells are outstanding; the caller sends them after the commit.

    *most* are looked at: as many as became due just now, or ended. Those that were rung before and not answered are
    rung *again* by the dispatcher alone, which sees how many bells nobody hears: else a queue would grow for as long as
    there is work and no worker, until the broker is full.
    """
    statement = _RING_AGAIN if again else _RING
    rung = statement.run(connection, {"tenant": tenant, "of_pattern": pattern, "share": share, "most": most})
    of = AccessPattern(pattern)
    return tuple(Bell(job=row.id, tenant=tenant, pattern=of, rung_until=row.rung_until) for row in rung)


def take_back(connection: Connection, bells: Sequence[Bell]) -> None:
    """Bells that could not be sent are outstanding no longer. One that was rung anew meanwhile stays, by its value."""
    for until in {bell.rung_until for bell in bells if bell.rung_until is not None}:
        silent = [bell.job for bell in bells if bell.rung_until == until]
        which = jobs.c.id.in_(silent) & IS_QUEUED & (jobs.c.rung_until == until)
        connection.execute(update(jobs).where(which).values(rung_until=None))


def patterns_with_due_jobs(connection: Connection) -> Sequence[str]:
    """The queues that have something to be rung for, in one question: the dispatcher asks it several times a second."""
    return _WITH_DUE_JOBS.run(connection).scalars()


def top_up(connection: Connection, pattern: str, *, window: int, unheard: int = 0) -> list[Bell]:
    """The dispatcher's tick for one queue: share the window among the tenants that have due work.

    Most have their share outstanding, since each end of a job rings for its tenant's next. *unheard* bells lie in the
    queue. Where a window of them is outstanding no longer, its workers are slow or away, and bells are not what lacks:
    then a tenant that has none outstanding gets one, for a job that was never rung.
    """
    busy = _TENANTS_WITH_DUE_JOBS.run(connection, {"of_pattern": pattern}).all()
    if unheard - sum(tenant.rung for tenant in busy) >= window:
        silent = [tenant.id for tenant in busy if tenant.rung == 0]
        return [bell for tenant in silent for bell in ring_due(connection, tenant, pattern)]
    share = max(1, window // len(busy)) if busy else 0
    short = [tenant.id for tenant in busy if tenant.rung < share]
    return [
        bell for tenant in short for bell in ring_due(connection, tenant, pattern, share=share, most=share, again=True)
    ]
