"""The jobs that a worker has are indexed by that, and not by when their claim ends, which each opening moves.

Revision ID: 0044
Revises: 0043
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0044"
down_revision: str | None = "0043"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    _index("id", where="state = 'running' or state = 'stopping'")


def _index(column: str, *, where: str) -> None:
    op.drop_index("ix_jobs_claimed", "jobs")
    op.create_index("ix_jobs_claimed", "jobs", [column], postgresql_where=sa.text(where), sqlite_where=sa.text(where))
