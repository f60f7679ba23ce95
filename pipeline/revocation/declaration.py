"""Revocation: one commit makes it effective, `Revoker.advance` carries it out, and a signed receipt reports the result.

No step under the scope opens after the commit of `declare`, by the ledger's own numbers; the rule is in
`identity.accounts.leases`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, Table, and_, bindparam, false, insert, or_, select

from identity import audit
from identity.accounts.scopes import revoke_scope
from identity.audit import AsWhom
from identity.errors import BadInput
from identity.model import AccountKey, Scope, ScopeKind
from identity.sql.prepared import Prepared
from identity.sql.sequence import lock_exclusive_number_and_time
from pipeline.batches import in_batches
from pipeline.revocation.tables import NARROWING, is_of_any, revocations
from pipeline.states import AttemptState
from pipeline.tables import attempts

_INSERT = Prepared(insert(revocations))
_BY_ID = Prepared(select(revocations).where(revocations.c.id == bindparam("revocation")))
# Any number of transactions may hold this lock together, and with writers of pages. It excludes the start of draining
# and the writing of a receipt.
_HELD = Prepared(
    select(revocations).where(revocations.c.id == bindparam("revocation")).with_for_update(read=True, key_share=True)
)
_WITHOUT_RECEIPT = Prepared(
    select(*(column for column in revocations.c if column.name not in ("receipt", "signature"))).where(
        revocations.c.id == bindparam("revocation")
    )
)


class Stage(StrEnum):
    """The progress of a revocation; `Revoker.advance` moves it."""

    EFFECTIVE = "effective"  # `declare` has committed: no step under it opens any more
    CANCELLING = "cancelling"  # jobs are being cancelled or told to stop
    DRAINING = "draining"  # every job was cancelled or told to stop; some calls or jobs have not ended yet
    QUIESCED = "quiesced"  # it has its receipt; a later revision may settle what this one calls pending


#: Stages in which some jobs may not have been cancelled or told to stop yet.
REACHING = (Stage.EFFECTIVE, Stage.CANCELLING)


@dataclass(frozen=True, kw_only=True)
class Cause:
    """The cause of a revocation or a narrowing: the channel it came by, the requester, and the reason given."""

    source: str
    by: str
    reason: str
    signal: str | None = None  # the signal that asked for it: a delivery, or the `jti` of a security event
    barred: tuple[str, ...] = ()  # further names of the people behind *by*; none may approve a compensation


def declare(
    connection: Connection,
    scope: Scope,
    cause: Cause,
    *,
    id: str,
    tenant: str | None,
    now: datetime,
    doubt: str | None = None,
) -> int:
    """Make a revocation effective in the caller's transaction, and return its ledger number. O(1), whatever is queued.

    Its time is read after taking its lock, from the clock that calls are opened by. *now* is earlier, and would make
    the receipt list calls opened after the revocation. *doubt* "open": the signal may be a replay, so the provider is
    asked before a receipt is issued (`pipeline.revoker.inquiry`).
    """
    number, effective_at = lock_exclusive_number_and_time(connection, scope)
    revoke_scope(connection, scope, number, reason=cause.reason, now=now)
    row = {
        "id": id,
        "number": number,
        "kind": scope.kind,
        "key": scope.key,
        "tenant_id": tenant,
        "source": cause.source,
        "signal_id": cause.signal,
        "requested_by": cause.by,
        "reason": cause.reason,
        "state": Stage.EFFECTIVE,
        "effective_at": effective_at,
        "moved_at": effective_at,
        "doubt": doubt,
        "barred": list(cause.barred) or None,
    }
    _INSERT.run(connection, row)
    audit.record(
        connection,
        "revocation.effective",
        AsWhom(tenant=tenant),
        id=f"{id}.effective",
        at=effective_at,
        number=number,
        outcome="effective",
        reason=cause.reason,
        detail={"revocation": id, "scope": str(scope), "source": cause.source, "signal": cause.signal, "by": cause.by},
    )
    return number


def load(connection: Connection, revocation: str) -> Row[Any]:
    """Return one revocation. Raises BadInput if there is none."""
    return _one(connection, _BY_ID, revocation)


def load_held(connection: Connection, revocation: str) -> Row[Any]:
    """Return one revocation, which gets no receipt until this transaction ends. Raises BadInput if there is none."""
    return _one(connection, _HELD, revocation)


def load_without_receipt(connection: Connection, revocation: str) -> Row[Any]:
    """Return one revocation without its receipt, which may be very long. Raises BadInput."""
    return _one(connection, _WITHOUT_RECEIPT, revocation)


def _one(connection: Connection, statement: Prepared, revocation: str) -> Row[Any]:
    row: Row[Any] | None = statement.run(connection, {"revocation": revocation}).one_or_none()
    if row is None:
        raise BadInput(f"there is no revocation {revocation}")
    return row


def newest_of(scope: Scope) -> Select[Any]:
    """Select the newest revocation of exactly that scope."""
    of_it = select(revocations).where(is_of_any([scope]))
    return of_it.order_by(revocations.c.number.desc()).limit(1)


def scope_of(row: Row[Any]) -> Scope:
    """Return the scope that a revocation revokes."""
    return Scope(kind=ScopeKind(row.kind), key=row.key)


def in_flight(connection: Connection, row: Row[Any]) -> list[Row[Any]]:
    """Return the calls in flight when the revocation *row* became effective, oldest first.

    Once the first receipt names them, they are looked up by id: a search would read every attempt closed since then.
    Those of a narrowing were found earlier (`pipeline.revocation.narrowing`).
    """
    if row.receipt is not None:
        return _named(connection, [call["attempt"] for call in row.receipt["in_flight"]])
    if row.kind == NARROWING:
        return _named(connection, row.calls or [])
    return flying(connection, scope_of(row), row.number)


def flying(connection: Connection, scope: Scope, number: int) -> list[Row[Any]]:
    """Return the attempts opened before *number* that are open, were closed after it, or are `unknown`."""
    before = under(scope, attempts) & (attempts.c.opened < number)
    still_out = or_(attempts.c.closed.is_(None), attempts.c.closed > number, attempts.c.state == AttemptState.UNKNOWN)
    return list(connection.execute(select(attempts).where(before, still_out).order_by(attempts.c.opened)).all())


def _named(connection: Connection, ids: list[str]) -> list[Row[Any]]:
    """Return the attempts with these ids; retention may have removed some."""
    found: list[Row[Any]] = []
    for some in in_batches(ids):
        rows = select(attempts).where(attempts.c.id.in_(some)).order_by(attempts.c.opened)
        found += connection.execute(rows).all()
    return found


def under(scope: Scope, table: Table) -> ColumnElement[bool]:
    """Match the rows of *table* that belong to a scope; none if it has no column for that kind of scope."""
    columns = table.c
    match scope.kind:
        case ScopeKind.TENANT:
            return columns.tenant_id == scope.key
        case ScopeKind.CONNECTION:
            return columns.connection_id == scope.key
        case ScopeKind.AGENT:
            return columns.agent_id == scope.key if "agent_id" in columns else false()
        case ScopeKind.USER:
            return columns.principal_id == scope.key
        case ScopeKind.ACCOUNT:
            key = AccountKey.parse(scope.key)
            return and_(
                columns.tenant_id == key.tenant,
                columns.connection_id == key.connection,
                columns.principal_id == key.principal,
            )
