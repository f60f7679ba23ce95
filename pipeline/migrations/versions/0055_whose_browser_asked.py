"""A connect that is to be confirmed is bound to the browser that asked for its link.

Revision ID: 0055
Revises: 0054
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0055"
down_revision: str | None = "0054"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("connect_sessions", sa.Column("nonce_hash", sa.String(64)))
