"""Several schedules of one workflow for a tenant, each with a name, and how they catch up.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    # SQLite changes a constraint by making the table anew, which its foreign keys forbid while slots point to it.
    op.execute("create table slots_kept as select * from slots")
    op.drop_table("slots")
    op.execute("create table schedules_kept as select * from schedules")
    op.drop_table("schedules")
    op.create_table(
        "schedules",
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("workflow", sa.String(length=100), nullable=False),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column("cron", sa.String(length=100), nullable=False),
        sa.Column("zone", sa.String(length=64), nullable=False),
        sa.Column("catch_up", sa.String(length=16), nullable=False),
        sa.Column("at_most", sa.Integer(), nullable=False),
        sa.Column("jitter_seconds", sa.Integer(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.Column("last_slot", sa.BigInteger(), nullable=True),
        sa.Column("fault", sa.Text(), nullable=True),
        sa.Column("removed_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_schedules_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_schedules_tenant_id_name")),
    )
    op.create_index(
        "ix_schedules_due",
        "schedules",
        ["next_at"],
        postgresql_where=sa.text("removed_at is null"),
        sqlite_where=sa.text("removed_at is null"),
    )
    op.execute(
        "insert into schedules (id, tenant_id, name, workflow, origin, cron, zone, catch_up, at_most, jitter_seconds,"
        " paused, next_at) select id, tenant_id, workflow, workflow, 'code', cron, zone, 'once', 10, 0, paused, next_at"
        " from schedules_kept"
    )
    _create_slots(key=200)
    op.drop_table("slots_kept")
    op.drop_table("schedules_kept")


def _create_slots(*, key: int) -> None:
    op.create_table(
        "slots",
        sa.Column("schedule_id", sa.String(length=key), nullable=False),
        sa.Column("slot", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("fired_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["schedule_id"], ["schedules.id"], name=op.f("fk_slots_schedule_id")),
        sa.PrimaryKeyConstraint("schedule_id", "slot", name=op.f("pk_slots")),
    )
    op.execute("insert into slots select schedule_id, slot, job_id, fired_at from slots_kept")
