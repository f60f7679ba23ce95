"""Outstanding bells: which due jobs may be rung, so that no tenant's backlog keeps another's work out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    null,
    select,
    update,
)

from identity.columns import database_in
from identity.model import AccessPattern
from identity.prepared import Prepared
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


def _tenants_with_due_jobs() -> Select[str, int]:
    """The tenants that have due jobs of a pattern, each with how many of its bells are outstanding.

    From one tenant in the index to the next: by what is queued, not by how many tenants there are, or jobs of one.
    """
    queued = (jobs.c.pattern == bindparam("of_pattern")) & IS_QUEUED
    least = select(func.min(jobs.c.tenant_id).label("tenant"))
    walk = least.where(queued).cte("walk", recursive=True)
    following = least.where(queued, jobs.c.tenant_id > walk.c.tenant).scalar_subquery()
    walk = walk.union_all(select(following).where(walk.c.tenant.is_not(None)))
    of_it = queued & (jobs.c.tenant_id == walk.c.tenant)
    rung = select(func.count()).where(of_it, jobs.c.rung_until > NOW).scalar_subquery()
    # Asked whether any is due, PostgreSQL expects to meet one soon, and may read the whole table for it.
    first_due = select(func.min(jobs.c.due_at)).where(of_it).scalar_subquery()
    return select(walk.c.tenant, rung.label("rung")).where(first_due <= NOW)


_BUSY = Prepared(_tenants_with_due_jobs())


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


@dataclass(frozen=True)
class Topping:
    """What the dispatcher rings for in one queue: tenants that lack bells, each with how many it is to have.

    *again*: also for jobs that were rung before, and not answered in time.
    """

    shares: Mapping[str, int]
    again: bool


def busy_tenants(connection: Connection) -> dict[str, dict[str, int]]:
    """By pattern the tenants that have due jobs, each with how many of its bells are outstanding."""
    found = {str(pattern): _BUSY.run(connection, {"of_pattern": pattern}) for pattern in AccessPattern}
    return {pattern: {row.tenant: row.rung for row in rows} for pattern, rows in found.items()}


def share_out(busy: Mapping[str, int], *, window: int, unheard: int) -> Topping:
    """Share the window of one queue among the tenants that have due work; *busy* has how many bells each has.

    Most have their share, since each end of a job rings for its tenant's next. *unheard* bells lie in the queue. Where
    a window of them is outstanding no longer, its workers are slow or away, and bells are not what lacks: then a tenant
    that has none outstanding gets one, for a job that was never rung.
    """
    held_up = unheard - sum(busy.values()) >= window
    share = 1 if held_up or not busy else max(1, window // len(busy))
    return Topping({tenant: share for tenant, rung in busy.items() if rung < share}, again=not held_up)


def top_up(connection: Connection, pattern: str, topping: Topping) -> list[Bell]:
    """Ring for the due jobs of these tenants, until each has its share."""
    return [
        bell
        for tenant, share in topping.shares.items()
        for bell in ring_due(connection, tenant, pattern, share=share, most=share, again=topping.again)
    ]
