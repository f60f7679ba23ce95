"""A transmitter that an operator removes stays as a row: its events are kept by its id.

Revision ID: 0037
Revises: 0036
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0037"
down_revision: str | None = "0036"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("transmitters", sa.Column("removed_at", sa.BigInteger(), nullable=True))
    op.execute("update transmitters set removed_at = created_at where jwks_url = ''")  # taken back below, and forward
