"""What needs a person now, counted: each count by an index, and no further than it matters."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, exists, func, literal, or_, select

from identity.hold import Hold, find_hold
from identity.model import AccountState, ScopeKind
from identity.tables import accounts, installations, provider_connections, scopes
from pipeline.ledger import queries
from pipeline.ledger.clock import clock
from pipeline.ledger.indexed import NOT_TAKEN, REPLAYABLE, STUCK, TROUBLED, UNANSWERED, in_state
from pipeline.revocation import Stage
from pipeline.revocation.tables import revocations
from pipeline.rhythms import silence_of
from pipeline.schedules.changes import LIVE
from pipeline.states import JobState
from pipeline.tables import attempts, deliveries, heartbeats, jobs, schedules

MOST = 1_000  # counted; more than that is "over a thousand" to anybody
_RECENT = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Overview:
    """How many of each there are, up to `MOST` + 1."""

    unanswered: int  # calls that only a person's word settles
    dead: int  # jobs that can still be replayed
    lost: int  # accounts that somebody has to connect again
    suspended: int  # accounts, by their provider
    refused: int  # deliveries of the last day that were unrecognised or refused
    revoking: int  # revocations without their receipt yet
    stuck: int  # revocations that a provider could not be asked to follow
    schedules: int  # with a fault
    paused: tuple[str, ...]  # provider connections
    stopped: tuple[str, ...]  # scopes
    withheld: int  # of the platform's, used by one tenant, and paused or stopped: connections and agents
    duties: tuple[str, ...]  # of housekeeping, that failed or are late; of all tenants alone
    hold: Hold | None  # of the installation; who and why is said to who sees all tenants


def overview(connection: Connection, tenant: str | None, *, now: datetime) -> Overview:
    """Of one tenant, or of all and the platform."""

    def count(table: Table, *where: ColumnElement[bool]) -> int:
        found = select(literal(1)).select_from(table).where(*where)
        return _counted(connection, found if tenant is None else found.where(table.c.tenant_id == tenant))

    unanswered = UNANSWERED if tenant is None else UNANSWERED.where(attempts.c.tenant_id == tenant)
    among = None if tenant is None else [tenant]
    bad = (deliveries.c.received_at > now - _RECENT) & NOT_TAKEN
    return Overview(
        unanswered=_counted(connection, unanswered),
        dead=count(jobs, REPLAYABLE),
        lost=count(accounts, TROUBLED, accounts.c.state == AccountState.NEEDS_RECONNECT),
        suspended=count(accounts, TROUBLED, accounts.c.state == AccountState.SUSPENDED),
        refused=count(deliveries, bad),
        revoking=count(revocations, revocations.c.state != Stage.QUIESCED),
        stuck=count(revocations, revocations.c.id.in_(STUCK)),
        schedules=count(schedules, LIVE, schedules.c.fault.is_not(None)),
        paused=tuple(row["id"] for row in queries.paused_connections(connection, among)),
        stopped=tuple(f"{row['kind']} {row['key']}" for row in queries.stopped_scopes(connection, among)),
        withheld=0 if tenant is None else _withheld(connection, tenant),
        duties=() if tenant is not None else _duties(connection),
        hold=find_hold(connection),
    )


def _counted(connection: Connection, found: Select[Any]) -> int:
    return int(connection.execute(select(func.count()).select_from(found.limit(MOST + 1).subquery())).scalar_one())


def _withheld(connection: Connection, tenant: str) -> int:
    """What is not theirs has no name here: that it is so is enough to ask the platform."""
    own, stops = provider_connections.c, scopes.c
    stopped = exists().where(stops.stopped.is_(True), stops.kind == ScopeKind.CONNECTION, stops.key == own.id)
    used = or_(
        exists().where(accounts.c.connection_id == own.id, accounts.c.tenant_id == tenant),
        exists().where(installations.c.connection_id == own.id, installations.c.tenant_id == tenant),
    )
    through = select(own.id).where(own.tenant_id.is_(None), or_(own.paused_reason.is_not(None), stopped), used)
    # Not the bare column, or SQLite would look through all the jobs that the tenant ever had.
    is_theirs = (func.coalesce(jobs.c.tenant_id, "") == tenant) & (jobs.c.agent_id == stops.key)
    works = or_(*(exists().where(in_state(state), is_theirs) for state in (JobState.QUEUED, JobState.WAITING)))
    under = select(stops.key).where(stops.stopped.is_(True), stops.kind == ScopeKind.AGENT, works)
    return _counted(connection, through) + _counted(connection, under)


def _duties(connection: Connection) -> tuple[str, ...]:
    """The newest beat of each duty counts: a host that is gone is no trouble while another does its work."""
    now, newest = clock(connection), dict[str, Any]()
    for row in connection.execute(select(heartbeats).order_by(heartbeats.c.at)):
        newest[row.duty] = row
    return tuple(duty for duty, row in sorted(newest.items()) if row.error or now - row.at > silence_of(duty))
