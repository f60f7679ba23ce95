"""A transmitter's word on its stream is kept: one that is paused or disabled says nothing more, and nobody saw it.

Revision ID: 0060
Revises: 0056
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0060"
down_revision: str | None = "0056"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("transmitters", sa.Column("stream_status", sa.String(20)))
    op.add_column("transmitters", sa.Column("stream_told_at", sa.BigInteger))
