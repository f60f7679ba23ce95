"""Looking through the audit: by tenant and job with an index, by anything else in a stretch of the newest records."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, select

from identity.audit_tables import audit
from pipeline.ledger.paging import Page, Turn, page_of

#: What may be looked for beside tenant and job; the columns of those names.
ALSO = ("kind", "agent_id", "principal_id", "account_id", "action", "outcome", "pattern")


def audit_page(
    connection: Connection, tenant: str | None, turn: Turn, *, job: str | None, also: Mapping[str, str | None]
) -> Page:
    """The records, newest first; *also*: what further columns, of `ALSO`, equal."""
    statement = select(audit)
    if tenant is not None:
        statement = statement.where(audit.c.tenant_id == tenant)
    if job is not None:
        statement = statement.where(audit.c.job_id == job)
    return page_of(connection, statement, turn, at=audit.c.number, id=audit.c.id, also=also)
