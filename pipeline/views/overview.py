"""Counts of what needs a person now, each by an index and up to a limit."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, ScalarSelect, Select, Table, exists, func, literal, or_, select

from identity.hold import Hold, find_hold
from identity.model import AccountState, ScopeKind
from identity.sql.columns import is_one
from identity.tables import accounts, installations, provider_connections, scopes, tenants
from pipeline.intervals import silence_of
from pipeline.ledger.clock import ledger_now
from pipeline.ledger.indexed import NOT_TAKEN, REPLAYABLE, STUCK, TROUBLED, UNANSWERED, in_state
from pipeline.ledger.paging import rows_of
from pipeline.revocation.declaration import Stage
from pipeline.revocation.tables import revocations
from pipeline.schedules.changes import LIVE
from pipeline.states import JobState
from pipeline.tables import attempts, deliveries, heartbeats, jobs, schedules
from pipeline.views import operator_queries

MOST = 1_000  # counted at most; more is shown as "over a thousand"
_RECENT = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The counts, each up to `MOST` + 1."""

    unanswered: int  # calls that only a person can settle
    dead: int  # jobs that can still be replayed
    lost: int  # accounts that somebody must connect again
    suspended: int  # accounts suspended by their provider
    refused: int  # deliveries of the last day that were unrecognised or refused
    revoking: int  # revocations without a receipt yet
    stuck: int  # revocations whose provider could not be asked to follow
    schedules: int  # with a fault
    paused: tuple[str, ...]  # provider connections
    stopped: tuple[str, ...]  # scopes
    withheld: int  # platform connections and agents that the tenant uses and that are paused or stopped
    duties: tuple[str, ...]  # of housekeeping, failed or late; only in the view of all tenants
    hold: Hold | None  # of the installation; only viewers of all tenants see who and why


def overview(connection: Connection, of: Collection[str] | None, *, now: datetime) -> dict[str | None, Overview]:
    """Return the counts per tenant, in as many statements as for one. None: all tenants and the platform as one."""
    paused, stopped = (
        operator_queries.paused_connections(connection, of),
        operator_queries.stopped_scopes(connection, of),
    )
    duties, hold = () if of is not None else _duties(connection), find_hold(connection)
    return {
        whose: Overview(
            **numbers,
            paused=tuple(row["id"] for row in paused if whose in (None, row["tenant_id"])),
            stopped=tuple(f"{row['kind']} {row['key']}" for row in stopped if whose in (None, row["key"])),
            duties=duties,
            hold=hold,
        )
        for whose, numbers in _numbers(connection, of, now).items()
    }


def _numbers(connection: Connection, of: Collection[str] | None, now: datetime) -> dict[str | None, dict[str, int]]:
    """Count per tenant, each by an index: one tenant's many rows do not hide another's."""

    def count(table: Table, *where: ColumnElement[bool]) -> ColumnElement[int]:
        found = select(literal(1)).select_from(table).where(*where)
        return _counted(found if of is None else found.where(table.c.tenant_id == tenants.c.id))

    bad = (deliveries.c.received_at > now - _RECENT) & NOT_TAKEN
    counts = {
        "unanswered": _counted(UNANSWERED if of is None else UNANSWERED.where(attempts.c.tenant_id == tenants.c.id)),
        "dead": count(jobs, REPLAYABLE),
        "lost": count(accounts, TROUBLED, accounts.c.state == AccountState.NEEDS_RECONNECT),
        "suspended": count(accounts, TROUBLED, accounts.c.state == AccountState.SUSPENDED),
        "refused": literal(0) if of is not None else count(deliveries, bad),
        "revoking": count(revocations, ~is_one(revocations.c.state, Stage.QUIESCED)),
        "stuck": count(revocations, revocations.c.id.in_(STUCK)),
        "schedules": count(schedules, LIVE, schedules.c.fault.is_not(None)),
        "withheld": literal(0) if of is None else _withheld(),
    }
    found = select().add_columns(*(number.label(name) for name, number in counts.items()))
    if of is None:
        (numbers,) = rows_of(connection, found)
        return {None: numbers}
    rows = rows_of(connection, found.add_columns(tenants.c.id).where(tenants.c.id.in_(of)))
    known = {row.pop("id"): row for row in rows}
    # Not by the bare tenant column, or SQLite would go through all rows of that time for each tenant.
    whose = func.coalesce(deliveries.c.tenant_id, "")
    refused = select(whose, func.count()).where(bad, whose.in_(of)).group_by(whose)
    for tenant, number in connection.execute(refused):
        known[tenant]["refused"] = number
    return {tenant: known.get(tenant, dict.fromkeys(counts, 0)) for tenant in of}


def _counted(found: Select[Any]) -> ScalarSelect[int]:
    few = found.limit(MOST + 1).correlate(tenants).subquery()
    return select(func.count()).select_from(few).scalar_subquery()


def _withheld() -> ColumnElement[int]:
    """Count withheld platform resources. They are not named to the tenant: a count is enough to ask the platform."""
    own, stops = provider_connections.c, scopes.c
    stopped = exists().where(stops.stopped.is_(True), stops.kind == ScopeKind.CONNECTION, stops.key == own.id)
    used = or_(
        *(
            exists()
            .where(table.c.connection_id == own.id, table.c.tenant_id == tenants.c.id)
            .correlate(provider_connections, tenants)
            for table in (accounts, installations)
        )
    )
    through = select(own.id).where(own.tenant_id.is_(None), or_(own.paused_reason.is_not(None), stopped), used)
    # Not the bare column, or SQLite would read all jobs the tenant ever had.
    is_theirs = (func.coalesce(jobs.c.tenant_id, "") == tenants.c.id) & (jobs.c.agent_id == stops.key)
    works = or_(
        *(
            exists().where(in_state(state), is_theirs).correlate(scopes, tenants)
            for state in (JobState.QUEUED, JobState.WAITING)
        )
    )
    under = select(stops.key).where(stops.stopped.is_(True), stops.kind == ScopeKind.AGENT, works)
    return _counted(through) + _counted(under)


def _duties(connection: Connection) -> tuple[str, ...]:
    """Return failed or late duties. Only the newest beat of each counts: a host may go while another does its work."""
    now, newest = ledger_now(connection), dict[str, Any]()
    for row in connection.execute(select(heartbeats).order_by(heartbeats.c.at)):
        newest[row.duty] = row
    return tuple(duty for duty, row in sorted(newest.items()) if row.error or now - row.at > silence_of(duty))
