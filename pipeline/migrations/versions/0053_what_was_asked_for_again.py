"""Signals that were asked for again, and connections that listed an installation before they kept to their list.

Where the last installation was taken back, or deleted at its provider, before revision 0049, only the audit knows that
there was one.

Revision ID: 0053
Revises: 0052
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0053"
down_revision: str | None = "0052"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "redeliveries",
        sa.Column("connection_id", sa.String(length=64), nullable=False),
        sa.Column("delivery_id", sa.String(length=200), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("connection_id", "delivery_id", name=op.f("pk_redeliveries")),
    )
    audit = sa.table("audit", sa.column("kind"), sa.column("tenant_id"), sa.column("detail", sa.JSON))
    own = sa.table("provider_connections", sa.column("id"), sa.column("tenant_id"), sa.column("only_listed"))
    listed = sa.exists().where(
        audit.c.tenant_id == own.c.tenant_id,  # which the platform's have not
        audit.c.kind.in_(("installation.added", "installation.removed")),
        audit.c.detail["connection"].as_string() == own.c.id,
    )
    op.execute(own.update().where(listed).values(only_listed=sa.true()))


def downgrade() -> None:
    op.drop_table("redeliveries")
