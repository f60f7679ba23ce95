"""Facts about an account beyond its row: the reason for its state, and the next command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, select

from identity.accounts.grants import get_grant
from identity.connections.registry import confirming
from identity.model import MINTED, AccountKey, AccountState, Credential, ScopeKind
from identity.refresh.story import latest_refresh
from pipeline.accounts.obstacles import Obstacle, obstacles, unconfirmed
from pipeline.jobs.awaited import consent_of
from pipeline.ledger.paging import Record, rows_of
from pipeline.states import JobState
from pipeline.tables import attempts, jobs

#: The command that gives a service a new credential.
_ADD = {
    Credential.INSTALLATION: "add-installation",
    Credential.STATIC: "add-static",
    Credential.CLIENT_CREDENTIALS: "add-client-credentials",
    Credential.JWT_BEARER: "add-jwt-bearer",
    Credential.ROTATING: "add-rotating",
}
#: Command groups that have `open`.
_OPENED = {ScopeKind.TENANT: "tenants", ScopeKind.CONNECTION: "connections"}

#: Replaces a command if none can be given: a link that must be confirmed is never made by hand.
_BY_PRODUCT = "their next visit in your product, which makes the link (POST /v1/connect-links)"


def told(row: Record) -> Record:
    """Return the account *row* with `why` and `next`, by its own state only."""
    why, next_ = _by_state(row)
    return {**row, "why": why, "next": next_}


def all_told(connection: Connection, rows: Sequence[Record]) -> list[Record]:
    """Return account *rows* with `why` and `next`, also considering what is above each.

    Considers revoked or stopped scopes, paused connections, and a consent that is not confirmed yet.
    """
    waiting = unconfirmed(connection, rows)
    own = [_unconfirmed(told(row), waiting.get(row["id"])) for row in rows]
    below = [_below(row, obstacle) for row, obstacle in zip(own, obstacles(connection, rows), strict=True)]
    by_product = confirming(connection, {row["connection_id"] for row in below if row["next"] == _reconnect(row)})
    return [
        {**row, "next": _BY_PRODUCT} if row["connection_id"] in by_product and row["next"] == _reconnect(row) else row
        for row in below
    ]


def whole(connection: Connection, row: Record) -> Record:
    """Return *row* with everything related: revocations above it, its latest refresh, waiting jobs, its last use."""
    key, account = AccountKey.of(row), row["id"]
    story = latest_refresh(connection, account)
    waiting = select(jobs.c.id, jobs.c.workflow, jobs.c.reason, jobs.c.expires_at).where(
        jobs.c.waits_for == consent_of(key), jobs.c.state == JobState.WAITING
    )
    used = select(attempts.c.opened_at).where(attempts.c.account_id == account).order_by(attempts.c.opened.desc())
    (own,) = all_told(connection, [row])
    return {
        **own,
        "latest_refresh": None if story is None else asdict(story),
        "waiting_jobs": rows_of(connection, waiting.order_by(jobs.c.created_at)),
        "last_used_at": connection.execute(used.limit(1)).scalar(),
    }


def next_token(connection: Connection, row: Record) -> str | None:
    """Return the command that gets the account its next token; None: it is not ours to give."""
    (own,) = all_told(connection, [row])
    if own["next"] is not None or row["state"] != AccountState.ACTIVE:
        next_: str | None = own["next"]
        return next_
    grant = get_grant(connection, row["id"])
    renewable = row["credential"] in MINTED or (grant is not None and grant.refresh_sealed is not None)
    return f"aswhom accounts refresh {row['id']}" if renewable else again(connection, row)


def again(connection: Connection, row: Record) -> str:
    """Return how to get a new consent."""
    return _BY_PRODUCT if is_by_product(connection, row) else _again(row)


def is_by_product(connection: Connection, row: Record) -> bool:
    """True if people can connect the account only by links that their product makes."""
    return row["credential"] == Credential.AUTHORIZATION_CODE and bool(confirming(connection, [row["connection_id"]]))


def _unconfirmed(row: Record, waiting: str | None) -> Record:
    if waiting is None:
        return row
    return {**row, "why": waiting if row["state"] == AccountState.PENDING else f"{row['why']}; {waiting}"}


def _below(row: Record, obstacle: Obstacle | None) -> Record:
    """Return *row* with the first reason from above."""
    if obstacle is None:
        return row
    if obstacle.scope is None:
        resume = f"aswhom connections resume {row['connection_id']}"
        return {**row, "why": f"{row['why']}; {obstacle.reason}", "next": resume}
    stopped = obstacle.stopped and _OPENED.get(obstacle.scope.kind)
    again = f"aswhom {stopped} open {obstacle.scope.key}" if stopped else _again(row)
    return {**row, "why": f"no step opens with it: {obstacle.reason}", "next": again}


def _by_state(row: Record) -> tuple[str, str | None]:
    reason = row["reason"]
    match AccountState(row["state"]):
        case AccountState.PENDING:
            return "nobody has consented yet", _again(row)
        case AccountState.ACTIVE:
            return "its grant is good as far as we know", None
        case AccountState.NEEDS_RECONNECT:
            return reason or "its grant is dead, or the outcome of a refresh is unknown", _again(row)
        case AccountState.SUSPENDED:
            return f"{reason or 'suspended by the provider'}; it ends where it began, at the provider", None
        case AccountState.REVOKED:
            return reason or "access was withdrawn", _again(row)


def _again(row: Record) -> str:
    command: Any = _ADD.get(Credential(row["credential"]))
    if command is None:
        return _reconnect(row)
    return f"aswhom accounts {command} --tenant {row['tenant_id']} --connection {row['connection_id']}"


def _reconnect(row: Record) -> str:
    return f"aswhom accounts reconnect {row['id']}"
