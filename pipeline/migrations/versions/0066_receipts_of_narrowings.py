"""A narrowing has a receipt as a revocation has: which scopes the account had and keeps, and the calls in flight.

Revision ID: 0066
Revises: 0065
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0066"
down_revision: str | None = "0065"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("revocations", sa.Column("narrowing", sa.JSON(none_as_null=True)))
    op.add_column("revocations", sa.Column("calls", sa.JSON(none_as_null=True)))
