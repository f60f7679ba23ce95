"""A tenant, an agent and an API key may each have a rate limit of their own, in place of the setting's.

Revision ID: 0070
Revises: 0069
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0070"
down_revision: str | None = "0069"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("tenants", sa.Column("webhook_rate", sa.Integer))
    op.add_column("agents", sa.Column("api_rate", sa.Integer))
    op.add_column("api_keys", sa.Column("api_rate", sa.Integer))
