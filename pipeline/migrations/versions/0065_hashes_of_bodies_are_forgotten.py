"""Hashes of bodies are found by when they were seen: they are forgotten once the same body counts as new.

Revision ID: 0065
Revises: 0064
"""

from __future__ import annotations

from alembic import op

revision: str = "0065"
down_revision: str | None = "0064"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_index("ix_delivery_bodies_seen", "delivery_bodies", ["seen_at"])
