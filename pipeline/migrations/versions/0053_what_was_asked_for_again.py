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
    said = sa.select(audit.c.tenant_id, audit.c.detail["connection"].as_string())  # in one walk through the audit
    said = said.where(audit.c.kind.in_(("installation.added", "installation.removed")))
    listed = sa.tuple_(own.c.tenant_id, own.c.id).in_(said)  # the platform's have no tenant
    op.execute(own.update().where(own.c.only_listed == sa.false(), listed).values(only_listed=sa.true()))
