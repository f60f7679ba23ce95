"""What signals need: the time of a consent, digests of refresh tokens, what providers said when, transmitters.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("accounts", sa.Column("suspension_said_at", sa.BigInteger(), nullable=True))
    op.add_column("accounts", sa.Column("permissions_said_at", sa.BigInteger(), nullable=True))
    op.add_column("grants", sa.Column("consented_at", sa.BigInteger(), nullable=True))
    op.add_column("grants", sa.Column("refresh_digest", sa.String(length=88), nullable=True))
    op.add_column("grants", sa.Column("refresh_prefix_digest", sa.String(length=88), nullable=True))
    op.create_index("ix_grants_refresh_digest", "grants", ["refresh_digest"])
    op.create_index("ix_grants_refresh_prefix_digest", "grants", ["refresh_prefix_digest"])
    op.add_column("revocations", sa.Column("doubt", sa.String(length=16), nullable=True))
    op.create_table(
        "transmitters",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("audience", sa.Text(), nullable=False),
        sa.Column("jwks_url", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=True),
        sa.Column("connection_id", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_transmitters_tenant_id_tenants")),
        sa.ForeignKeyConstraint(
            ["connection_id"],
            ["provider_connections.id"],
            name=op.f("fk_transmitters_connection_id_provider_connections"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transmitters")),
    )
    op.create_table(
        "security_events",
        sa.Column("transmitter_id", sa.String(length=64), nullable=False),
        sa.Column("jti", sa.String(length=200), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=True),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("outcome", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("token", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_security_events_tenant_id_tenants")),
        sa.ForeignKeyConstraint(
            ["transmitter_id"], ["transmitters.id"], name=op.f("fk_security_events_transmitter_id_transmitters")
        ),
        sa.PrimaryKeyConstraint("transmitter_id", "jti", name=op.f("pk_security_events")),
    )
