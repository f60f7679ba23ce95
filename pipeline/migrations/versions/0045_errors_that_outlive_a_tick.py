"""A heartbeat keeps the last error of its duty, and when that was, while later ticks are well.

Revision ID: 0045
Revises: 0044
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0045"
down_revision: str | None = "0044"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("heartbeats", sa.Column("last_error", sa.Text()))
    op.add_column("heartbeats", sa.Column("failed_at", sa.BigInteger()))
