"""The scopes that are stopped are found without a look at all that were ever revoked.

Revision ID: 0043
Revises: 0042
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0043"
down_revision: str | None = "0042"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_index(
        "ix_scopes_stopped",
        "scopes",
        ["kind", "key"],
        postgresql_where=sa.text("stopped is true"),
        sqlite_where=sa.text("stopped is 1"),
    )
