"""Dead jobs are found, counted and grouped without a look at those that were done.

Revision ID: 0014
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | None = "0010"
branch_labels: str | None = None
depends_on: str | None = None

_DEAD = sa.text("state = 'dead'")


def upgrade() -> None:
    op.create_index(
        "ix_jobs_dead",
        "jobs",
        ["pattern", "tenant_id", "finished_at"],
        postgresql_where=_DEAD,
        sqlite_where=_DEAD,
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_dead", "jobs")
