"""Secrets with a switch date, and what an installation's tokens are narrowed to.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("connection_secrets", sa.Column("used_from", sa.BigInteger(), nullable=True))
    op.add_column("connection_secrets", sa.Column("refused_at", sa.BigInteger(), nullable=True))
    op.add_column("accounts", sa.Column("resources", sa.JSON(), nullable=True))
