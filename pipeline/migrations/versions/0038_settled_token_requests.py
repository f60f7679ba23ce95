"""Of a request for a token the ledger says when its outcome was known, by a number: a receipt names those in flight.

Revision ID: 0038
Revises: 0037
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0038"
down_revision: str | None = "0037"
branch_labels: str | None = None
depends_on: str | None = None

_TABLES = ("refresh_intents", "mints")


def upgrade() -> None:
    for table in _TABLES:
        op.add_column(table, sa.Column("settled", sa.BigInteger()))
    # Of what has ended nobody knows any more when, but that it was before any revocation to come.
    op.execute("update refresh_intents set settled = opened where finished_at is not null and state <> 'unknown'")
    op.execute("update mints set settled = opened where finished_at is not null")
    for table in _TABLES:
        op.create_index(op.f(f"ix_{table}_settled"), table, ["settled"])
