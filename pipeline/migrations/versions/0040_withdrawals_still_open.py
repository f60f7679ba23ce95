"""What is still to end at providers is found by its one state, in words that say it once, and by its revocation.

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


def upgrade() -> None:
    _made_anew(["state", "revocation_id", "due_at"], where="state = 'pending' or state = 'stuck'")


def downgrade() -> None:
    _made_anew(["state", "due_at"], where="state in ('pending', 'stuck')")


def _made_anew(columns: list[str], *, where: str) -> None:
    name = "ix_withdrawals_open"
    op.drop_index(name, "withdrawals")
    op.create_index(name, "withdrawals", columns, postgresql_where=sa.text(where), sqlite_where=sa.text(where))
