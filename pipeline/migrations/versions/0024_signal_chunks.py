"""A signal that means very many accounts reaches them in several transactions.

Revision ID: 0024
Revises: 0023
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0024"
down_revision: str | None = "0023"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "signal_chunks",
        sa.Column("delivery_id", sa.String(64), nullable=False),
        sa.Column("place", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("revocation_id", sa.String(64), nullable=False),
        sa.Column("signal", sa.JSON(), nullable=False),
        sa.Column("seen", sa.Boolean(), nullable=False),
        sa.Column("accounts", sa.JSON(), nullable=False),
        sa.Column("became", sa.JSON(none_as_null=True)),
        sa.ForeignKeyConstraint(["delivery_id"], ["deliveries.id"], name=op.f("fk_signal_chunks_delivery_id")),
        sa.PrimaryKeyConstraint("delivery_id", "place", name=op.f("pk_signal_chunks")),
    )
