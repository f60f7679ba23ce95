"""The console: its people, and indices for the lists that people read.

Revision ID: 0015
Revises: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | None = None
depends_on: str | None = None

OPEN = "state in ('queued', 'waiting')"
BAD = "state in ('dead', 'cancelled')"
NOT_TAKEN = "outcome in ('unrecognised', 'refused')"
TROUBLED = "state in ('needs_reconnect', 'suspended')"

#: Name, table, columns, and the rows that are in it.
INDICES: tuple[tuple[str, str, list[str], str | None], ...] = (
    ("ix_jobs_created", "jobs", ["created_at", "id"], None),
    ("ix_jobs_tenant", "jobs", ["tenant_id", "created_at", "id"], None),
    ("ix_jobs_bad", "jobs", ["state", "created_at", "id"], BAD),
    ("ix_jobs_bad_of_tenant", "jobs", ["tenant_id", "state", "created_at", "id"], BAD),
    ("ix_jobs_open", "jobs", ["created_at", "id"], OPEN),
    ("ix_jobs_delivery", "jobs", ["delivery_id"], None),
    ("ix_deliveries_received", "deliveries", ["received_at", "id"], None),
    ("ix_deliveries_tenant", "deliveries", ["tenant_id", "received_at", "id"], None),
    ("ix_deliveries_bad", "deliveries", ["received_at", "id"], NOT_TAKEN),
    ("ix_revocations_effective", "revocations", ["effective_at", "id"], None),
    ("ix_accounts_created", "accounts", ["created_at", "id"], None),
    ("ix_accounts_tenant", "accounts", ["tenant_id", "created_at", "id"], None),
    ("ix_accounts_troubled", "accounts", ["created_at", "id"], TROUBLED),
)


def upgrade() -> None:
    op.create_table(
        "console_roles",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("claim", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=True),
        sa.Column("made_by", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_console_roles_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_console_roles")),
        sa.UniqueConstraint(
            "claim", "value", "role", "tenant_id", name=op.f("uq_console_roles_claim_value_role_tenant_id")
        ),
    )
    op.create_table(
        "console_sessions",
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("via", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("token_sha256", name=op.f("pk_console_sessions")),
    )
    op.create_index("ix_console_sessions_expires", "console_sessions", ["expires_at"])
    op.create_table(
        "console_links",
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("made_by", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("token_sha256", name=op.f("pk_console_links")),
    )
    for name, table, columns, where in INDICES:
        condition = None if where is None else sa.text(where)
        op.create_index(name, table, columns, postgresql_where=condition, sqlite_where=condition)
    op.drop_index("ix_jobs_finished", "jobs")
    _waiting("wait", "due_at", "tenant_id")


def _waiting(*columns: str) -> None:
    """Those that wait can be counted for one tenant in the index alone."""
    condition = sa.text("state = 'waiting'")
    op.drop_index("ix_jobs_waiting", "jobs")
    op.create_index("ix_jobs_waiting", "jobs", list(columns), postgresql_where=condition, sqlite_where=condition)
