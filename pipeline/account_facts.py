"""What is known of an account beside its row, and in words: why it is as it is, and the next command."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, select

from identity.connections import paused_reason
from identity.model import AccountState, Credential
from identity.refresh_story import latest_refresh
from identity.scopes import grant_scopes, revoked_since
from pipeline.ledger.jobs import consent_of
from pipeline.ledger.paging import Row
from pipeline.ledger.queries import account_key
from pipeline.states import JobState
from pipeline.tables import attempts, jobs

#: The command that gives a service its credential anew.
_ADD = {
    Credential.INSTALLATION: "add-installation",
    Credential.STATIC: "add-static",
    Credential.CLIENT_CREDENTIALS: "add-client-credentials",
    Credential.JWT_BEARER: "add-jwt-bearer",
    Credential.ROTATING: "add-rotating",
}


def told(row: Row) -> Row:
    """*row* of an account with `why` and `next`: by its own state alone."""
    why, next_ = _by_state(row)
    return {**row, "why": why, "next": next_}


def whole(connection: Connection, row: Row) -> Row:
    """*row* with what else bears on it: revocations above it, its latest refresh, jobs that wait, its last use."""
    key, account = account_key(row), row["id"]
    story = latest_refresh(connection, account)
    waiting = select(jobs.c.id, jobs.c.workflow, jobs.c.reason, jobs.c.expires_at).where(
        jobs.c.waits_for == consent_of(key), jobs.c.state == JobState.WAITING
    )
    used = select(attempts.c.opened_at).where(attempts.c.account_id == account).order_by(attempts.c.opened.desc())
    facts: Row = {
        **told(row),
        "latest_refresh": None if story is None else asdict(story),
        "waiting_jobs": [dict(one._mapping) for one in connection.execute(waiting.order_by(jobs.c.created_at))],  # noqa: SLF001 - its documented name
        "last_used_at": connection.execute(used.limit(1)).scalar(),
    }
    ruled_out = row["consented"] is not None and revoked_since(connection, grant_scopes(key), row["consented"])
    if row["state"] == AccountState.ACTIVE and ruled_out:
        facts |= {"why": f"no step opens with it: {ruled_out.reason}", "next": _again(row)}
    elif paused := paused_reason(connection, key.connection):
        resume = f"aswhom connections resume {key.connection}"
        facts |= {"why": f"{facts['why']}; its provider connection is paused: {paused}", "next": resume}
    return facts


def _by_state(row: Row) -> tuple[str, str | None]:
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


def _again(row: Row) -> str:
    """How a new consent comes about."""
    command: Any = _ADD.get(Credential(row["credential"]))
    if command is None:
        return f"aswhom accounts reconnect {row['id']}"
    return f"aswhom accounts {command} --tenant {row['tenant_id']} --connection {row['connection_id']}"
