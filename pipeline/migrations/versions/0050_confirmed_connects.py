"""A connect may have to be confirmed by the product that made its link.

Revision ID: 0050
Revises: 0049
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0050"
down_revision: str | None = "0049"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("connect_sessions", sa.Column("confirm", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("connect_sessions", sa.Column("code_hash", sa.String(64)))
