"""The jobs that ended badly are found by their one state, in words that say it once.

Revision ID: 0035
Revises: 0034
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0035"
down_revision: str | None = "0034"
branch_labels: str | None = None
depends_on: str | None = None

_INDEXES = {
    "ix_jobs_bad": ["state", "created_at", "id"],
    "ix_jobs_bad_of_tenant": ["tenant_id", "state", "created_at", "id"],
}


def upgrade() -> None:
    _made_anew(where="state = 'dead' or state = 'cancelled'")


def _made_anew(*, where: str) -> None:
    for name, columns in _INDEXES.items():
        op.drop_index(name, "jobs")
        op.create_index(name, "jobs", columns, postgresql_where=sa.text(where), sqlite_where=sa.text(where))
