"""A private key has the `kid` by which its provider knows it, beside its successor with another.

Revision ID: 0046
Revises: 0045
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0046"
down_revision: str | None = "0045"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("connection_secrets", sa.Column("key_id", sa.String(255)))
