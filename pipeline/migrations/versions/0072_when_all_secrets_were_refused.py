"""When all secrets of a client had been refused has a column of its own: it was kept as a time to retry at.

Revision ID: 0072
Revises: 0071
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0072"
down_revision: str | None = "0071"
branch_labels: str | None = None
depends_on: str | None = None

_intents = sa.table(
    "refresh_intents", *map(sa.column, ("state", "refused_keys", "refused_since", "retry_at", "finished_at"))
)


def upgrade() -> None:
    op.add_column("refresh_intents", sa.Column("refused_since", sa.BigInteger()))
    columns = _intents.c
    # A time to retry at lies after the end of the refresh; this one lay before it.
    kept = sa.and_(
        columns.state == "failed", columns.refused_keys.is_not(None), columns.retry_at <= columns.finished_at
    )
    op.execute(sa.update(_intents).where(kept).values(refused_since=columns.retry_at, retry_at=None))
