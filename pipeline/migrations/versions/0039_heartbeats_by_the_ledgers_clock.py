"""A heartbeat is dated by the ledger's clock, and beside it says what its host's clock showed.

Revision ID: 0039
Revises: 0038
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0039"
down_revision: str | None = "0038"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("heartbeats", sa.Column("host_at", sa.BigInteger()))
