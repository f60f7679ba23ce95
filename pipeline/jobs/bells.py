"""Outstanding bells: limit each tenant's, so that its backlog does not block another's work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

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

from identity.hold import IS_HELD, find_hold
from identity.model import AccessPattern
from identity.sql.columns import database_in
from identity.sql.prepared import Prepared
from pipeline.authoring.declared_workflow import Workflow
from pipeline.ledger.clock import NOW
from pipeline.model import Bell
from pipeline.tables import IS_CLAIMED, IS_QUEUED, jobs

RINGS_FOR = timedelta(seconds=30)  # an unanswered bell is presumed lost after this, and is replaced
FIRST_SHARE = 16  # bells a tenant may have outstanding without the dispatcher's permission

_QUEUED = (jobs.c.pattern == bindparam("of_pattern")) & (jobs.c.tenant_id == bindparam("tenant")) & IS_QUEUED
_OUTSTANDING = select(func.count()).where(_QUEUED, jobs.c.rung_until > NOW).scalar_subquery()
_ROOM: ColumnElement[int] = bindparam("share") - _OUTSTANDING
_MOST: ColumnElement[int] = bindparam("most")
_SILENT = (jobs.c.rung_until.is_(None)) | (jobs.c.rung_until <= NOW)
_UNRUNG = and_(_QUEUED, jobs.c.due_at <= NOW, _SILENT)
# Materialized: PostgreSQL may otherwise run the subquery once per row, which defeats its limit.
_DUE = (
    select(jobs.c.id)
    .where(_UNRUNG, ~IS_HELD)
    .order_by(jobs.c.due_at, jobs.c.accepted)
    .limit(case((_ROOM <= 0, 0), (_ROOM < _MOST, _ROOM), else_=_MOST))  # SQLite reads a negative limit as no limit
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

_UNANSWERED = Prepared(select(jobs.c.id).where(_QUEUED, jobs.c.rung_until <= NOW))

# For a due job that is being accepted. Rung at once if the tenant's share has room and no older due job is unrung;
# otherwise NULL. Also NULL while the installation is held, so that its release finds no outstanding bell that nobody
# answered.
RUNG_UNTIL_IF_ROOM = case((and_(_ROOM > 0, ~exists().where(_UNRUNG), ~IS_HELD), database_in(RINGS_FOR)), else_=null())


def _tenants_with_due_jobs() -> Select[str, int, bool]:
    """Select the tenants with due jobs of a pattern: their outstanding bells, and whether a due job has none.

    A recursive query jumps from tenant to tenant in the index, so its cost follows the queued tenants, not all tenants
    or the length of a backlog.
    """
    queued = (jobs.c.pattern == bindparam("of_pattern")) & IS_QUEUED
    least = select(func.min(jobs.c.tenant_id).label("tenant"))
    walk = least.where(queued).cte("walk", recursive=True)
    following = least.where(queued, jobs.c.tenant_id > walk.c.tenant).scalar_subquery()
    walk = walk.union_all(select(following).where(walk.c.tenant.is_not(None)))
    of_it = queued & (jobs.c.tenant_id == walk.c.tenant)
    rung = select(func.count()).where(of_it, jobs.c.rung_until > NOW).scalar_subquery()
    # An EXISTS would make PostgreSQL expect an early match, and possibly scan the whole table.
    first_due = select(func.min(jobs.c.due_at)).where(of_it).scalar_subquery()
    unrung = select(jobs.c.due_at).where(of_it, jobs.c.due_at <= NOW, _SILENT).order_by(jobs.c.due_at).limit(1)
    lacks = unrung.scalar_subquery().is_not(None)
    return select(walk.c.tenant, rung.label("rung"), lacks.label("lacks")).where(first_due <= NOW)


_BUSY = Prepared(_tenants_with_due_jobs())
# At most as many rows as workers have threads; queued and ended jobs do not matter.
_RUNNING = Prepared(
    select(jobs.c.tenant_id, func.count().label("running")).where(IS_CLAIMED).group_by(jobs.c.tenant_id)
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

    *most*: how many jobs to look at, which is as many as just became due or ended. Only the dispatcher, which sees how
    many bells go unheard (`share_out`), sets *again* to ring for jobs whose bell was not answered.
    """
    statement = _RING_AGAIN if again else _RING
    whose = {"tenant": tenant, "of_pattern": pattern}
    unanswered = set(_UNANSWERED.run(connection, whose).scalars()) if again else set()
    rung = statement.run(connection, {**whose, "share": share, "most": most})
    of = AccessPattern(pattern)
    return tuple(
        Bell(job=row.id, tenant=tenant, pattern=of, rung_until=row.rung_until, again=row.id in unanswered)
        for row in rung
    )


def unring(connection: Connection, bells: Sequence[Bell]) -> None:
    """Clear bells that could not be sent. A bell rung again meanwhile stays: it has another time."""
    for until in {bell.rung_until for bell in bells if bell.rung_until is not None}:
        silent = [bell.job for bell in bells if bell.rung_until == until]
        which = jobs.c.id.in_(silent) & IS_QUEUED & (jobs.c.rung_until == until)
        connection.execute(update(jobs).where(which).values(rung_until=None))


class Busy(NamedTuple):
    """The load of a tenant that has due jobs of a pattern."""

    rung: int  # outstanding bells
    lacks: bool  # a due job has no bell
    running: int = 0  # jobs that workers hold, of any pattern, as the same threads may run them all

    def most(self, share: int) -> int:
        """Return how many bells the tenant may have outstanding: its *share*, less its running jobs.

        Never less than FIRST_SHARE, which acceptances and ends of runs ring for anyway. Otherwise the leftover claims
        of dead workers would slow their tenant to a crawl until they lapse.
        """
        return max(min(share, FIRST_SHARE), share - self.running)


def busy_tenants(connection: Connection) -> dict[str, dict[str, Busy]]:
    """Return the tenants with due jobs, by pattern; none while the installation is held."""
    found = {str(pattern): list(_BUSY.run(connection, {"of_pattern": pattern})) for pattern in AccessPattern}
    running: dict[str, int] = {}
    if any(row.lacks for rows in found.values() for row in rows):  # otherwise no tenant's share is needed
        if find_hold(connection) is not None:
            return {}
        running = {row.tenant_id: row.running for row in _RUNNING.run(connection)}
    return {
        pattern: {row.tenant: Busy(row.rung, row.lacks, running.get(row.tenant, 0)) for row in rows}
        for pattern, rows in found.items()
    }


def share_out(busy: Mapping[str, Busy], *, window: int, unheard: Callable[[], int | None]) -> dict[str, int]:
    """Return how many bells each tenant of one queue that lacks bells may have.

    Each gets an equal share of the *window*, less its running jobs; otherwise a tenant that occupies every thread with
    hanging calls would hold the window as well. *unheard* returns how many bells lie in the queue, or None.

    If the queue holds a window of bells that are no longer outstanding, its workers are slow or away. More bells do not
    help then, so only a tenant with none outstanding gets one. A queue longer than slow workers explain gets none:
    nobody is listening, and it would grow until the broker is full. An unreachable broker gets none either: each bell
    would be written, and taken back, for as long as it is away.
    """
    share = max(1, window // len(busy)) if busy else 0
    short = {tenant: one for tenant, one in busy.items() if one.lacks and one.rung < one.most(share)}
    if not short:
        return {}
    lying = unheard()
    if lying is None or lying >= 2 * (window + FIRST_SHARE * len(busy)):
        return {}
    if lying - sum(one.rung for one in busy.values()) >= window:
        return {tenant: 1 for tenant, one in short.items() if one.rung == 0}
    return {tenant: one.most(share) for tenant, one in short.items()}


def first_bells(connection: Connection, tenant: str, workflows: Iterable[Workflow]) -> tuple[Bell, ...]:
    """Ring for newly accepted jobs of these workflows, and return the bells."""
    accepted = Counter(workflow.pattern for workflow in workflows)
    return tuple(bell for one in sorted(accepted) for bell in ring_due(connection, tenant, one, most=accepted[one]))


def top_up(connection: Connection, pattern: str, shares: Mapping[str, int]) -> list[Bell]:
    """Ring for the dispatcher in one queue, up to each tenant's share, including jobs with unanswered bells."""
    return [
        bell
        for tenant, share in shares.items()
        for bell in ring_due(connection, tenant, pattern, share=share, most=share, again=True)
    ]
