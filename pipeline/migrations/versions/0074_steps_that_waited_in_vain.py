"""Whether a failed step waited for its upstream in vain: each run raises for it what the first one raised.

Revision ID: 0074
Revises: 0073
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0074"
down_revision: str | None = "0073"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("steps", sa.Column("upstream_gone", sa.Boolean(), nullable=True))
