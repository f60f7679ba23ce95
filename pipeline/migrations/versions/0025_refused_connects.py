"""What a refused connect had won ends at its provider, unless that would end what the same person granted elsewhere.

Revision ID: 0025
Revises: 0024
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0025"
down_revision: str | None = "0024"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("withdrawals", sa.Column("external_id", sa.String(200)))
