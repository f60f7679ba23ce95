"""The record of capabilities: issued when a step opens, closed when it ends. Runs in the caller's transaction.

A step has at most one open capability. Until it expires, the outcome of its request is unknown and the same capability
is sent again, unless the step's approvers have changed or its job was replayed: a revocation from before a replay ended
the earlier ones for good. Otherwise the next opening gets a new one.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from identity.capability.model import CapabilityRequest, Issued, Outcome
from identity.capability.tables import capabilities
from identity.capability.verifier import LONGEST, Capability, Limit
from identity.sql.prepared import Prepared

_INSERT = Prepared(insert(capabilities))
_FIND = Prepared(select(capabilities).where(capabilities.c.jti == bindparam("jti")))
_OF_STEP = Prepared(
    select(capabilities).where(
        capabilities.c.step_id == bindparam("step"),
        capabilities.c.accepted == bindparam("accepted"),
        capabilities.c.closed_at.is_(None),
        capabilities.c.parent_jti.is_(None),
    )
)
_CLOSE = Prepared(
    update(capabilities)
    .where(capabilities.c.step_id == bindparam("of_step"), capabilities.c.closed_at.is_(None))
    .values(closed_at=bindparam("now"), outcome=bindparam("why"))
)


def issue(connection: Connection, wanted: CapabilityRequest, *, now: datetime, use_within: timedelta) -> Capability:
    """Return the step's open capability for the same request if it lives *use_within* longer, otherwise a new one."""
    alive_at, by = now + use_within, wanted.approved_by
    earlier = living(connection, wanted.step, at=alive_at, accepted=wanted.accepted, approved_by=by)
    if earlier is not None and earlier.request_sha256 == wanted.request_sha256:
        return earlier
    close(connection, wanted.step, Outcome.SUPERSEDED, now=now)
    issued_at = now.replace(microsecond=0)  # tokens carry whole seconds
    new = Capability(
        id=wanted.id,
        audience=wanted.audience.uri,
        tenant=wanted.tenant,
        subject=wanted.principal,
        actors=(wanted.agent,),
        job=wanted.job,
        step=wanted.step,
        action=wanted.action,
        resource=wanted.resource,
        limit=wanted.limit,
        request_sha256=wanted.request_sha256,
        issued_at=issued_at,
        expires_at=issued_at + min(wanted.lifetime, LONGEST),
        approved_by=wanted.approved_by,
    )
    insert_capability(
        connection,
        new,
        audience=wanted.audience.id,
        connection_id=wanted.connection,
        agent=wanted.agent,
        accepted=wanted.accepted,
        parent=None,
    )
    return new


def insert_capability(
    connection: Connection,
    new: Capability,
    *,
    audience: str,
    connection_id: str,
    agent: str,
    accepted: int,
    parent: str | None,
) -> None:
    """Record a new capability."""
    _INSERT.run(
        connection,
        {
            "jti": new.id,
            "audience_id": audience,
            "uri": new.audience,
            "tenant_id": new.tenant,
            "connection_id": connection_id,
            "agent_id": agent,
            "principal_id": new.subject,
            "accepted": accepted,
            "actors": list(new.actors),
            "job_id": new.job,
            "step_id": new.step,
            "action": new.action,
            "resource": new.resource,
            "limit_amount": f"{new.limit.amount:f}" if new.limit else None,
            "limit_currency": new.limit.currency if new.limit else None,
            "request_sha256": new.request_sha256,
            "approved_by": list(new.approved_by),
            "parent_jti": parent,
            "issued_at": new.issued_at,
            "expires_at": new.expires_at,
        },
    )


def living(
    connection: Connection, step: str, *, at: datetime, accepted: int, approved_by: tuple[str, ...]
) -> Capability | None:
    """Return the step's open capability, or None.

    It is unexpired *at* that time, was issued under this acceptance of the job, and names these approvers.
    """
    found = map(_capability, _OF_STEP.run(connection, {"step": step, "accepted": accepted}))
    return next((one for one in found if one.expires_at > at and one.approved_by == approved_by), None)


def find(connection: Connection, jti: str) -> Issued | None:
    """Return the record with that id, or None."""
    row = _FIND.run(connection, {"jti": jti}).one_or_none()
    return None if row is None else _issued(row)


def child_of(connection: Connection, parent: str) -> Issued | None:
    """Return the capability for which *parent* was exchanged, or None."""
    row = connection.execute(select(capabilities).where(capabilities.c.parent_jti == parent)).one_or_none()
    return None if row is None else _issued(row)


def close(connection: Connection, step: str, outcome: Outcome, *, now: datetime) -> None:
    """Close the step's capabilities, including those obtained by exchange."""
    values = {"of_step": step, "now": now, "why": outcome}
    # A statement that waited for an exchange does not see the capability that it inserted; the next one does.
    while _CLOSE.run(connection, values).rowcount > 0:
        pass


def prune_capabilities(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete up to *limit* that expired *before* then; return how many. Unknown tokens are refused."""
    old = (
        select(capabilities.c.jti)
        .where(capabilities.c.expires_at < before)
        .order_by(capabilities.c.expires_at)
        .limit(limit)
    )
    return connection.execute(delete(capabilities).where(capabilities.c.jti.in_(old))).rowcount


def _issued(row: Row[Any]) -> Issued:
    return Issued(
        capability=_capability(row),
        audience=row.audience_id,
        connection=row.connection_id,
        agent=row.agent_id,
        accepted=row.accepted,
        parent=row.parent_jti,
        spent_sha256=row.spent_sha256,
        exchanged_sha256=row.exchanged_sha256,
        closed_at=row.closed_at,
    )


def _capability(row: Row[Any]) -> Capability:
    limit = None if row.limit_amount is None else Limit(amount=Decimal(row.limit_amount), currency=row.limit_currency)
    return Capability(
        id=row.jti,
        audience=row.uri,
        tenant=row.tenant_id,
        subject=row.principal_id,
        actors=tuple(row.actors),
        job=row.job_id,
        step=row.step_id,
        action=row.action,
        resource=row.resource,
        limit=limit,
        request_sha256=row.request_sha256,
        issued_at=row.issued_at,
        expires_at=row.expires_at,
        approved_by=tuple(row.approved_by),
    )
