"""The unfinished jobs of a tenant are listed from the index of all of them, without a look at each.

Revision ID: 0033
Revises: 0032
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0033"
down_revision: str | None = "0032"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    _open_jobs(["state", "created_at", "id", "tenant_id"], where="state = 'queued' or state = 'waiting'")


def _open_jobs(columns: list[str], *, where: str) -> None:
    op.drop_index("ix_jobs_open", "jobs")
    op.create_index("ix_jobs_open", "jobs", columns, postgresql_where=sa.text(where), sqlite_where=sa.text(where))
