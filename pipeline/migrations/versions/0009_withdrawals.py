"""Credentials that are to end at their provider after a revocation.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | None = None
depends_on: str | None = None

_KEPT = "state = 'discarded' and answer_sealed is not null"
_OPEN = "state in ('pending', 'stuck')"


def upgrade() -> None:
    op.create_table(
        "withdrawals",
        sa.Column("id", sa.String(100), nullable=False),
        sa.Column("account_id", sa.String(64), nullable=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("credential", sa.String(32), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("consented", sa.BigInteger(), nullable=False),
        sa.Column("revocation_id", sa.String(64)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("access_sealed", sa.LargeBinary()),
        sa.Column("refresh_sealed", sa.LargeBinary()),
        sa.Column("answer_sealed", sa.LargeBinary()),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column("tries", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger()),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_withdrawals_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_withdrawals")),
    )
    op.create_index("ix_withdrawals_account", "withdrawals", ["account_id"])
    op.create_index("ix_withdrawals_revocation", "withdrawals", ["revocation_id"])
    op.create_index(
        "ix_withdrawals_open",
        "withdrawals",
        ["state", "due_at"],
        postgresql_where=sa.text(_OPEN),
        sqlite_where=sa.text(_OPEN),
    )
    op.create_index(
        "ix_refresh_intents_kept",
        "refresh_intents",
        ["account_id"],
        postgresql_where=sa.text(_KEPT),
        sqlite_where=sa.text(_KEPT),
    )
