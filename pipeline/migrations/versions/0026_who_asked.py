"""Who asked for a job, as they are called for good and as people know them, and who had it accepted anew.

Revision ID: 0026
Revises: 0025
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0026"
down_revision: str | None = "0025"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("triggered_login", sa.String(200), nullable=True))
    op.add_column("jobs", sa.Column("replayed_by", sa.JSON(none_as_null=True), nullable=True))
