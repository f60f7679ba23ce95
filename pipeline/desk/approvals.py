"""Operator actions on approvals, except answering them, each with its audit row."""

from __future__ import annotations

from sqlalchemy import Connection, select

from identity.approval_links import ApprovalLink
from identity.audit import Act
from pipeline.approvals.tables import approvals
from pipeline.desk.changes import record_change


def link_made(connection: Connection, link: ApprovalLink, act: Act) -> None:
    """Record that somebody made a link, whose bearer may answer as the person it is for."""
    tenant = connection.execute(select(approvals.c.tenant_id).where(approvals.c.id == link.approval)).scalar_one()
    detail = {"approval": link.approval, "for": link.principal, "until": link.expires_at.isoformat()}
    record_change(connection, "approval.link_made", tenant, detail, act)
