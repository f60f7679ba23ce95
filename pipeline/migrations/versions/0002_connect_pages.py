"""What the pages of a connect say and where they lead.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "return_targets",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=True),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_return_targets_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_return_targets")),
    )
    op.add_column("connect_sessions", sa.Column("result", sa.JSON(), nullable=True))
    op.add_column("connect_sessions", sa.Column("return_to", sa.Text(), nullable=True))
    op.add_column("connect_sessions", sa.Column("any_account", sa.Boolean(), nullable=False, server_default=sa.false()))
