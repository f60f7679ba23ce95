"""The scopes that a wait for consent is for.

Revision ID: 0016
Revises: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0016"
down_revision: str | None = "0014"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("lacks", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "lacks")
