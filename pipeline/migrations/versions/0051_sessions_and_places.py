"""A session of the console knows whose subject it is; and where people connected is kept. Everybody signs in anew.

Revision ID: 0051
Revises: 0050
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0051"
down_revision: str | None = "0050"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    _anew(sa.Column("issuer", sa.String(500)), sa.Column("seen_at", sa.BigInteger(), nullable=False))
    op.create_table(
        "places_seen",
        sa.Column("connection_id", sa.String(64), nullable=False),
        sa.Column("external_id", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("connection_id", "external_id", name=op.f("pk_places_seen")),
    )
    op.execute("insert into places_seen select connection_id, external_id from installations")
    op.execute("insert into places_seen select distinct connection_id, '' from accounts")


def _anew(*more: sa.Column[Any]) -> None:
    """None of the sessions is kept: by which provider somebody signed in was not known."""
    op.drop_table("console_sessions")
    op.create_table(
        "console_sessions",
        sa.Column("token_sha256", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("via", sa.String(16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        *more,
        sa.PrimaryKeyConstraint("token_sha256", name=op.f("pk_console_sessions")),
    )
    op.create_index("ix_console_sessions_expires", "console_sessions", ["expires_at"])
