"""Open approvals whose time is over are found by an index.

Revision ID: 0030
Revises: 0029
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0030"
down_revision: str | None = "0029"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    open_ = sa.text("state = 'open'")
    op.create_index(
        "ix_approvals_expiring", "approvals", ["state", "expires_at"], postgresql_where=open_, sqlite_where=open_
    )
