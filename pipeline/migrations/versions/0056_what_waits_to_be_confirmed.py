"""What a connect has won and is kept for says so by itself, and until when: it was read from its tries and its times.

Revision ID: 0056
Revises: 0055
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0056"
down_revision: str | None = "0055"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("withdrawals", sa.Column("kept_until", sa.BigInteger))
    # Those whose browser is on its way to the product in this moment: it is told that their link was made before.
    op.execute("""
        update withdrawals set kept_until = due_at
         where origin = 'connect' and state = 'pending' and exists (
           select 1 from connect_sessions
            where connect_sessions.started = withdrawals.consented
              and connect_sessions.outcome = 'awaiting' and connect_sessions.expires_at = withdrawals.due_at
         )
    """)
