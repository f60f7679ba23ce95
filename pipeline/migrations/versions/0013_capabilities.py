"""Capabilities: who takes them, the keys that sign them, and each that was issued.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "capability_audiences",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.String(64)),
        sa.Column("connection_id", sa.String(64)),
        sa.Column("algorithm", sa.String(16), nullable=False),
        sa.Column("passes_to", sa.JSON(), nullable=False),
        sa.Column("secret_sha256", sa.String(64), nullable=False),
        sa.Column("former_sha256", sa.String(64)),
        sa.Column("former_until", sa.BigInteger()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("removed_at", sa.BigInteger()),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_capability_audiences_tenant_id")),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["provider_connections.id"], name=op.f("fk_capability_audiences_connection_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_capability_audiences")),
        sa.UniqueConstraint("connection_id", name=op.f("uq_capability_audiences_connection_id")),
    )
    op.create_table(
        "capability_keys",
        sa.Column("kid", sa.String(64), nullable=False),
        sa.Column("algorithm", sa.String(16), nullable=False),
        sa.Column("public", sa.JSON(), nullable=False),
        sa.Column("private_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("use_from", sa.BigInteger(), nullable=False),
        sa.Column("withdrawn_at", sa.BigInteger()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_capability_keys")),
    )
    op.create_table(
        "capabilities",
        sa.Column("jti", sa.String(64), nullable=False),
        sa.Column("audience_id", sa.String(64), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("connection_id", sa.String(64), nullable=False),
        sa.Column("agent_id", sa.String(64), nullable=False),
        sa.Column("principal_id", sa.String(64), nullable=False),
        sa.Column("accepted", sa.BigInteger(), nullable=False),
        sa.Column("actors", sa.JSON(), nullable=False),
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("step_id", sa.String(64), nullable=False),
        sa.Column("action", sa.String(100), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("limit_amount", sa.String(32)),
        sa.Column("limit_currency", sa.String(16)),
        sa.Column("request_sha256", sa.String(64), nullable=False),
        sa.Column("approved_by", sa.JSON(), nullable=False),
        sa.Column("parent_jti", sa.String(64)),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("spent_sha256", sa.String(64)),
        sa.Column("spent_at", sa.BigInteger()),
        sa.Column("exchanged_sha256", sa.String(64)),
        sa.Column("closed_at", sa.BigInteger()),
        sa.Column("outcome", sa.String(16)),
        sa.PrimaryKeyConstraint("jti", name=op.f("pk_capabilities")),
        sa.UniqueConstraint("parent_jti", name=op.f("uq_capabilities_parent_jti")),
    )
    op.create_index("ix_capabilities_step", "capabilities", ["step_id"])
    op.create_index("ix_capabilities_expires", "capabilities", ["expires_at"])
