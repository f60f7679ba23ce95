"""A refresh whose second presentation had no effect stays in doubt because of its first.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("refresh_intents", sa.Column("doubtful_since", sa.BigInteger(), nullable=True))
