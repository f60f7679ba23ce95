"""Provider connections say when they were last resumed, and withdrawals how often nobody had their vault key.

Revision ID: 0031
Revises: 0030
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0031"
down_revision: str | None = "0030"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("provider_connections", sa.Column("resumed", sa.BigInteger(), nullable=True))
    op.add_column("withdrawals", sa.Column("keyless", sa.Integer(), nullable=False, server_default=sa.text("0")))
