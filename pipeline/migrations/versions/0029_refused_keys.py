"""A refused assertion is held against its account's refresh alone, until another key is accepted for that account.

Revision ID: 0029
Revises: 0028
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0029"
down_revision: str | None = "0028"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("refresh_intents", sa.Column("refused_keys", sa.JSON(none_as_null=True), nullable=True))
