"""What is still to end at providers is found by its one state, in words that say it once, and by its revocation.

A revocation says when every credential under its scope had been taken, so that nobody looks through the scope again.

Revision ID: 0040
Revises: 0039
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0040"
down_revision: str | None = "0039"
branch_labels: str | None = None
depends_on: str | None = None

_UNCOLLECTED = "ix_revocations_uncollected"


def upgrade() -> None:
    op.add_column("revocations", sa.Column("collected_at", sa.BigInteger()))
    # Until now all were taken before there was a receipt.
    op.execute("update revocations set collected_at = quiesced_at where revision > 0")
    to_collect = sa.text("collected_at is null")
    op.create_index(_UNCOLLECTED, "revocations", ["revision"], postgresql_where=to_collect, sqlite_where=to_collect)
    _made_anew(["state", "revocation_id", "due_at"], where="state = 'pending' or state = 'stuck'")


def _made_anew(columns: list[str], *, where: str) -> None:
    name = "ix_withdrawals_open"
    op.drop_index(name, "withdrawals")
    op.create_index(name, "withdrawals", columns, postgresql_where=sa.text(where), sqlite_where=sa.text(where))
