"""Looking through the audit: for `audit search` and `audit show`, and for the console, page by page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, or_, select

from identity.audit_tables import audit, audit_seals
from identity.errors import BadInput
from pipeline.ledger.paging import Page, Row, Turn, page_of, rows_of


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
    statement = _rows().where(*_indexed(search), *_further(search, audit.c))
    return rows_of(connection, statement.order_by(audit.c.number.desc(), audit.c.id.desc()).limit(limit))


def page(connection: Connection, search: Search, turn: Turn) -> Page:
    """The same in pages: by tenant and job with an index, by the rest in a stretch of the newest."""
    statement = select(audit).where(*_indexed(search))
    return page_of(connection, statement, turn, at=audit.c.number, id=audit.c.id, also=partial(_further, search))


def _indexed(search: Search) -> list[ColumnElement[bool]]:
    wanted = ((audit.c.tenant_id, search.tenant), (audit.c.job_id, search.job))
    return [column == value for column, value in wanted if value is not None]


def _further(search: Search, columns: Any) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    for column, wanted in (
        (columns.agent_id, search.agent),
        (columns.account_id, search.account),
        (columns.action, search.action),
        (columns.outcome, search.outcome),
    ):
        if wanted is not None:
            found.append(column == wanted)
    if search.principal is not None:
        found.append(or_(columns.principal_id == search.principal, columns.on_behalf_of == search.principal))
    if search.kind is not None:
        within = columns.kind.startswith(f"{search.kind}.", autoescape=True)
        found.append(or_(columns.kind == search.kind, within))
    if search.since is not None:
        found.append(columns.at >= search.since)
    if search.until is not None:
        found.append(columns.at < search.until)
    return found


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
