"""No two audiences that take capabilities have one address, however they are added.

Revision ID: 0028
Revises: 0027
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0028"
down_revision: str | None = "0027"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    live = sa.text("removed_at IS NULL")
    op.create_index(
        "ix_capability_audiences_uri",
        "capability_audiences",
        ["uri"],
        unique=True,
        postgresql_where=live,
        sqlite_where=live,
    )
