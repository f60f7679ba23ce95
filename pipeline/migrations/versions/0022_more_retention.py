"""Retention finds old slots, idempotency keys and ended keys of the agents' API.

Revision ID: 0022
Revises: 0021
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0022"
down_revision: str | None = "0021"
branch_labels: str | None = None
depends_on: str | None = None

#: What retention looks for: (index, table, column, condition).
_OLD = (
    ("ix_slots_fired", "slots", "fired_at", None),
    ("ix_idempotency_keys_made", "idempotency_keys", "made_at", None),
    ("ix_api_keys_expires", "api_keys", "expires_at", sa.text("expires_at is not null")),
    ("ix_api_keys_revoked", "api_keys", "revoked_at", sa.text("revoked_at is not null")),
)


def upgrade() -> None:
    for index, table, column, condition in _OLD:
        op.create_index(index, table, [column], postgresql_where=condition, sqlite_where=condition)
