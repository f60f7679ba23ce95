"""The dead jobs that can be replayed are counted without the many that retention has forgotten.

Revision ID: 0042
Revises: 0041
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0042"
down_revision: str | None = "0041"
branch_labels: str | None = None
depends_on: str | None = None

_INDEXES = {
    "ix_jobs_dead": ["state", "pruned_at", "created_at", "id", "pattern"],
    "ix_jobs_dead_of_tenant": ["tenant_id", "state", "pruned_at", "created_at", "id"],
}


def upgrade() -> None:
    where = sa.text("state = 'dead' and pruned_at is null")
    for name, columns in _INDEXES.items():
        op.create_index(name, "jobs", columns, postgresql_where=where, sqlite_where=where)
