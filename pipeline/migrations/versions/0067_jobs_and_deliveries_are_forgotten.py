"""Jobs and deliveries may be forgotten: what names a job is found by it, and how far that came is told.

Revision ID: 0067
Revises: 0066
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0067"
down_revision: str | None = "0066"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_index("ix_attempts_job", "attempts", ["job_id"])
    op.create_index("ix_idempotency_keys_made_id", "idempotency_keys", ["made_id"])
    op.create_table(
        "forgotten",
        sa.Column("what", sa.String(length=16), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("before", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("what", name=op.f("pk_forgotten")),
    )
