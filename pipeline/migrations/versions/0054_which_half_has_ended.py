"""Of a withdrawal with two tokens it is kept which of them has ended at its provider.

Revision ID: 0054
Revises: 0053
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0054"
down_revision: str | None = "0053"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("withdrawals", sa.Column("ended", sa.String(16)))
