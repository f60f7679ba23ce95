"""A key of the agents' API says which user holds it, who approves nothing that it asks for.

Revision ID: 0064
Revises: 0060
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0064"
down_revision: str | None = "0060"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("held_by", sa.String(64)))
