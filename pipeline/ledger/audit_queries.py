"""What `audit search` and `audit show` ask the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, or_, select

from identity.audit_tables import audit, audit_seals
from identity.errors import BadInput
from pipeline.ledger.queries import Row, rows_of


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is looked for; None: whatever there is."""

    tenant: str | None = None
    job: str | None = None
    kind: str | None = None  # step, attempt …, or in full: attempt.opened
    principal: str | None = None  # as whom, or on whose behalf
    agent: str | None = None
    account: str | None = None
    action: str | None = None
    outcome: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def found(connection: Connection, search: Search, *, limit: int) -> list[Row]:
    """The records, newest first."""
    columns = audit.c
    statement = _rows().order_by(columns.number.desc(), columns.id.desc()).limit(limit)
    for column, wanted in (
        (columns.tenant_id, search.tenant),
        (columns.job_id, search.job),
        (columns.agent_id, search.agent),
        (columns.account_id, search.account),
        (columns.action, search.action),
        (columns.outcome, search.outcome),
    ):
        if wanted is not None:
            statement = statement.where(column == wanted)
    if search.principal is not None:
        statement = statement.where(or_(*(c == search.principal for c in (columns.principal_id, columns.on_behalf_of))))
    if search.kind is not None:
        within = columns.kind.startswith(f"{search.kind}.", autoescape=True)
        statement = statement.where(or_(columns.kind == search.kind, within))
    if search.since is not None:
        statement = statement.where(columns.at >= search.since)
    if search.until is not None:
        statement = statement.where(columns.at < search.until)
    return rows_of(connection, statement)


def record(connection: Connection, id: str) -> Row:
    """One record, by its id. Raises BadInput."""
    for row in rows_of(connection, _rows().where(audit.c.id == id)):
        return row
    raise BadInput(f"there is no audit record {id}: see `aswhom audit search`")


def _rows() -> Select[Any]:
    """Each with its number in the chain."""
    seals = audit_seals.c
    return select(*audit.c, seals.seq.label("sealed_as")).outerjoin_from(
        audit, audit_seals, seals.audit_id == audit.c.id
    )
