"""Keep-alive: when a grant is looked at, and whether it is in use. Retention: finding what is old.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None

_DUE = sa.text("keepalive_due is not null")
#: What retention looks for: (index, table, column, condition).
_OLD = (
    ("ix_deliveries_bodies", "deliveries", "received_at", sa.text("length(body) > 0")),
    ("ix_jobs_unpruned", "jobs", "finished_at", sa.text("finished_at is not null and pruned_at is null")),
    ("ix_refresh_intents_finished", "refresh_intents", "finished_at", sa.text("finished_at is not null")),
    ("ix_connect_sessions_expires", "connect_sessions", "expires_at", None),
)


def upgrade() -> None:
    op.add_column("grants", sa.Column("used_at", sa.BigInteger(), nullable=True))
    op.add_column("grants", sa.Column("keepalive_due", sa.BigInteger(), nullable=True))
    for name in ("keepalive_rank", "keepalive_failures"):
        op.add_column("grants", sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("grants", sa.Column("keepalive_error", sa.Text(), nullable=True))
    op.create_index(
        "ix_grants_keepalive",
        "grants",
        ["keepalive_rank", "keepalive_due"],
        postgresql_where=_DUE,
        sqlite_where=_DUE,
    )
    op.add_column("jobs", sa.Column("pruned_at", sa.BigInteger(), nullable=True))
    for index, table, column, condition in _OLD:
        op.create_index(index, table, [column], postgresql_where=condition, sqlite_where=condition)
    # What there is already is looked at at once, and planned from there.
    op.execute(
        "update grants set keepalive_due = obtained_at where account_id in "
        "(select id from accounts where state = 'active')"
    )
