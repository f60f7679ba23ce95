"""Who revoked, by every name they have: none of these people approves a compensation.

Revision ID: 0073
Revises: 0072
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0073"
down_revision: str | None = "0072"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("revocations", sa.Column("barred", sa.JSON(none_as_null=True), nullable=True))
