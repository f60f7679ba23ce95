"""Searches of the audit: for `audit search`, `audit show` and, page by page, the console."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, or_, select

from identity.audit.tables import audit, audit_seals
from identity.errors import BadInput
from pipeline.ledger.paging import Page, Record, Turn, page_of, rows_of, together


@dataclass(frozen=True, kw_only=True)
class Search:
    """The search criteria; None matches everything."""

    tenant: str | None = None
    job: str | None = None
    kind: str | None = None  # step, attempt …, or in full: attempt.opened
    principal: str | None = None  # acting, or on whose behalf
    agent: str | None = None
    account: str | None = None
    action: str | None = None
    outcome: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def found(connection: Connection, search: Search, *, limit: int) -> list[Record]:
    """Return the records, newest first, each with its number in the chain."""
    return list(_page(connection, _rows(), search, Turn(limit=limit)).rows)


def recent_kinds(connection: Connection, *, rows: int = 10_000) -> list[str]:
    """Return the kinds of the newest *rows* records."""
    newest = select(audit.c.kind).order_by(audit.c.number.desc()).limit(rows).subquery()
    return list(connection.execute(select(newest.c.kind).distinct().order_by(newest.c.kind)).scalars())


def page(connection: Connection, search: Search, turn: Turn) -> Page:
    """Return a page of the records, newest first.

    Searches by job, principal, tenant or, across tenants, agent use an index; others go through a stretch.
    """
    return _page(connection, select(audit), search, turn)


def _page(connection: Connection, statement: Select[Any], search: Search, turn: Turn) -> Page:
    number, id = audit.c.number, audit.c.id
    ways = _ways(search)
    pages = [
        page_of(
            connection,
            statement.where(*(column == value for column, value in way.items())),
            turn,
            at=number,
            id=id,
            also=partial(_conditions, search, without=way),
        )
        for way in ways
    ]
    return pages[0] if len(pages) == 1 else together(pages, turn, at=number, id=id)


def _ways(search: Search) -> list[dict[Column[Any], str]]:
    """Return the narrowest conditions an index serves. A principal takes two: as actor, and on whose behalf.

    The tenant is always among them: the end of a stretch that held other tenants' records would reveal them.
    """
    columns = audit.c
    of_tenant = {} if search.tenant is None else {columns.tenant_id: search.tenant}
    if search.job is not None:
        return [of_tenant | {columns.job_id: search.job}]
    if search.principal is not None:
        return [of_tenant | {column: search.principal} for column in (columns.principal_id, columns.on_behalf_of)]
    # An agent within a tenant is searched among the tenant's newest: a platform agent may have few records there among
    # very many.
    if search.agent is not None and not of_tenant:
        return [{columns.agent_id: search.agent}]
    return [of_tenant]


def _conditions(search: Search, columns: Any, *, without: Collection[Column[Any]]) -> list[ColumnElement[bool]]:
    """Return the criteria as conditions on the audit or a stretch of it, without those an index has served."""
    equal = (
        ("tenant_id", search.tenant),
        ("job_id", search.job),
        ("agent_id", search.agent),
        ("account_id", search.account),
        ("action", search.action),
        ("outcome", search.outcome),
    )
    indexed = {column.name for column in without}
    found = [columns[name] == wanted for name, wanted in equal if wanted is not None and name not in indexed]
    if search.principal is not None and not indexed & {"principal_id", "on_behalf_of"}:
        found.append(or_(columns.principal_id == search.principal, columns.on_behalf_of == search.principal))
    if search.kind is not None:
        within = columns.kind.startswith(f"{search.kind}.", autoescape=True)
        found.append(or_(columns.kind == search.kind, within))
    if search.since is not None:
        found.append(columns.at >= search.since)
    if search.until is not None:
        found.append(columns.at < search.until)
    return found


def record(connection: Connection, id: str) -> Record:
    """Return one record by its id. Raises BadInput."""
    for row in rows_of(connection, _rows().where(audit.c.id == id)):
        return row
    raise BadInput(f"there is no audit record {id}: see `aswhom audit search`")


def _rows() -> Select[Any]:
    """Select the records, each with its number in the chain."""
    seals = audit_seals.c
    return select(*audit.c, seals.seq.label("sealed_as")).outerjoin_from(
        audit, audit_seals, seals.audit_id == audit.c.id
    )
