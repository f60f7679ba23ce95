"""Operator actions on the addresses a connect may return to, each with its audit row."""

from __future__ import annotations

from sqlalchemy import Connection, select

from identity.audit import Act
from identity.connect.return_targets import add_target, checked_url, remove_target
from identity.connect_sessions.tables import return_targets
from identity.errors import BadInput
from pipeline.desk.changes import record_change
from pipeline.views import operator_queries


def add(connection: Connection, id: str, act: Act, *, tenant: str | None, url: str) -> None:
    """Let the last page of a connect lead to *url*. Raises BadInput if it is invalid, or a target already."""
    checked_url(url)
    if tenant is not None:
        operator_queries.living_tenant(connection, tenant)
    if not add_target(connection, id=id, tenant=tenant, url=url, now=act.now):
        raise BadInput(f"{url} is a return target already: see `aswhom connect returns`")
    detail = {"return_target": id, "url": url}
    record_change(connection, "return_target.added", tenant, detail, act)


def remove(connection: Connection, id: str, act: Act) -> None:
    """Remove a return target. Raises BadInput if there is none with that id."""
    columns = return_targets.c
    found = connection.execute(select(columns.tenant_id, columns.url).where(columns.id == id)).one_or_none()
    if found is None or not remove_target(connection, id):
        raise BadInput(f"there is no return target {id}: `aswhom connect returns` shows them")
    detail = {"return_target": id, "url": found.url}
    record_change(connection, "return_target.removed", found.tenant_id, detail, act)
