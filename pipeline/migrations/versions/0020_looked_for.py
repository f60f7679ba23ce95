"""Indices for what people look for: a principal or an agent in the audit, approvals, waiting jobs, revocations.

Revision ID: 0020
Revises: 0019
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0020"
down_revision: str | None = "0019"
branch_labels: str | None = None
depends_on: str | None = None

#: Name, table, columns.
INDICES: tuple[tuple[str, str, list[str]], ...] = (
    ("ix_audit_agent", "audit", ["agent_id", "number"]),
    ("ix_audit_principal", "audit", ["principal_id", "number"]),
    ("ix_audit_on_behalf_of", "audit", ["on_behalf_of", "number"]),
    ("ix_approvals_created", "approvals", ["created_at", "id"]),
    ("ix_approvals_tenant", "approvals", ["tenant_id", "created_at", "id"]),
    ("ix_approvals_state", "approvals", ["state", "created_at", "id"]),
    ("ix_approvals_state_of_tenant", "approvals", ["state", "tenant_id", "created_at", "id"]),
    ("ix_revocations_tenant", "revocations", ["tenant_id", "effective_at", "id"]),
)
_UNFINISHED = sa.text("state in ('queued', 'waiting')")


def upgrade() -> None:
    op.drop_index("ix_approvals_open", "approvals")
    op.drop_index("ix_approvals_tenant", "approvals")
    for name, table, columns in INDICES:
        op.create_index(name, table, columns)
    _open_jobs("state", "created_at", "id")


def _open_jobs(*columns: str) -> None:
    op.drop_index("ix_jobs_open", "jobs")
    op.create_index("ix_jobs_open", "jobs", list(columns), postgresql_where=_UNFINISHED, sqlite_where=_UNFINISHED)
