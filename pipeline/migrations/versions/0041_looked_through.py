"""What ended and must stay is looked through in order, however many ended at one instant.

Revision ID: 0041
Revises: 0039
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0041"
down_revision: str | None = "0040"
branch_labels: str | None = None
depends_on: str | None = None

_INDEXES = (
    ("ix_jobs_unpruned", "jobs", sa.text("finished_at is not null and pruned_at is null")),
    ("ix_refresh_intents_finished", "refresh_intents", sa.text("finished_at is not null")),
)


def upgrade() -> None:
    _index("finished_at", "id")


def _index(*columns: str) -> None:
    for name, table, where in _INDEXES:
        op.drop_index(name, table)
        op.create_index(name, table, list(columns), postgresql_where=where, sqlite_where=where)
