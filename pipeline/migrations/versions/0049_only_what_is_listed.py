"""A tenant's own connection that has listed an installation keeps to what it lists; a workspace's organization is kept.

Revision ID: 0049
Revises: 0048
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0049"
down_revision: str | None = "0048"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("installations", sa.Column("organization", sa.String(200)))
    op.add_column(
        "provider_connections", sa.Column("only_listed", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.execute(
        "update provider_connections set only_listed = true "
        "where tenant_id is not null and id in (select connection_id from installations)"
    )
