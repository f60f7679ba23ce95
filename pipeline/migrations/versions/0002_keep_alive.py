"""Keep-alive: when a grant is looked at, and whether it is in use.

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

_DUE = sa.text("keepalive_due is not null")


def upgrade() -> None:
    op.add_column("grants", sa.Column("used_at", sa.BigInteger(), nullable=True))
    op.add_column("grants", sa.Column("keepalive_due", sa.BigInteger(), nullable=True))
    for name in ("keepalive_rank", "keepalive_failures"):
        op.add_column("grants", sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("grants", sa.Column("keepalive_error", sa.Text(), nullable=True))
    op.create_index(
        "ix_grants_keepalive",
        "grants",
        ["keepalive_rank", "keepalive_due"],
        postgresql_where=_DUE,
        sqlite_where=_DUE,
    )
    # What there is already is looked at at once, and planned from there.
    op.execute(
        "update grants set keepalive_due = obtained_at where account_id in "
        "(select id from accounts where state = 'active')"
    )


def downgrade() -> None:
    op.drop_index("ix_grants_keepalive", table_name="grants", postgresql_where=_DUE, sqlite_where=_DUE)
    for name in ("keepalive_error", "keepalive_failures", "keepalive_rank", "keepalive_due", "used_at"):
        op.drop_column("grants", name)
