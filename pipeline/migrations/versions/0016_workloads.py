"""Workloads: whose tokens stand in for an agent's key.

Revision ID: 0016
Revises: 0015
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "workloads",
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("issuer", sa.String(length=500), nullable=False),
        sa.Column("audience", sa.String(length=500), nullable=False),
        sa.Column("subject", sa.String(length=500), nullable=False),
        sa.Column("jwks_url", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=op.f("fk_workloads_key_id")),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_workloads")),
        sa.UniqueConstraint("issuer", "subject", "audience", name=op.f("uq_workloads_issuer_subject_audience")),
    )
