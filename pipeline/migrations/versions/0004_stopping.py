"""Sets of scopes instead of a row a scope and job; what a revocation reached, and what followed from it."""

from __future__ import annotations

from collections import defaultdict
from hashlib import sha256

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("scopes_sha256", sa.String(64)))
    op.rename_table("job_scopes", "job_scopes_0001")
    # SQLite and PostgreSQL keep the name of the renamed table's key, which the new one needs.
    if op.get_bind().dialect.name == "postgresql":
        op.execute("alter table job_scopes_0001 rename constraint pk_job_scopes to pk_job_scopes_0001")
    op.create_table(
        "job_scopes",
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("scopes_sha256", sa.String(64), nullable=False),
        sa.Column("on_revoke", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("kind", "key", "scopes_sha256", name=op.f("pk_job_scopes")),
    )
    _share_sets()
    op.drop_table("job_scopes_0001")
    op.create_index(
        "ix_jobs_unfinished",
        "jobs",
        ["scopes_sha256", "accepted"],
        postgresql_where=sa.text("finished_at is null"),
        sqlite_where=sa.text("finished_at is null"),
    )
    op.create_index("ix_attempts_closed", "attempts", ["closed"])
    op.create_index(
        "ix_attempts_unknown",
        "attempts",
        ["opened"],
        postgresql_where=sa.text("state = 'unknown'"),
        sqlite_where=sa.text("state = 'unknown'"),
    )
    op.add_column("grants", sa.Column("ceiling", sa.JSON()))
    op.add_column("revocations", sa.Column("signal_id", sa.String(200)))
    for name in ("revision", "open_ends"):
        op.add_column("revocations", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    op.create_index(
        "ix_revocations_open_ends",
        "revocations",
        ["moved_at"],
        postgresql_where=sa.text("open_ends > 0"),
        sqlite_where=sa.text("open_ends > 0"),
    )
    op.create_table(
        "revocation_pages",
        sa.Column("revocation_id", sa.String(64), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("cancelled", sa.JSON(), nullable=False),
        sa.Column("stopping", sa.JSON(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["revocation_id"], ["revocations.id"], name=op.f("fk_revocation_pages_revocation_id")),
        sa.PrimaryKeyConstraint("revocation_id", "number", name=op.f("pk_revocation_pages")),
    )
    op.create_table(
        "compensations",
        sa.Column("step_id", sa.String(64), nullable=False),
        sa.Column("revocation_id", sa.String(64), nullable=False),
        sa.Column("job_id", sa.String(64)),
        sa.Column("reason", sa.Text()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["revocation_id"], ["revocations.id"], name=op.f("fk_compensations_revocation_id")),
        sa.ForeignKeyConstraint(["step_id"], ["steps.id"], name=op.f("fk_compensations_step_id")),
        sa.PrimaryKeyConstraint("step_id", name=op.f("pk_compensations")),
    )
    op.create_index("ix_compensations_revocation", "compensations", ["revocation_id"])


def _share_sets() -> None:
    """Store the set of every job once, by its content; a digest is only a name, so how it is made may change."""
    database = op.get_bind()
    old = sa.table("job_scopes_0001", sa.column("kind"), sa.column("key"), sa.column("job_id"))
    new = sa.table(
        "job_scopes", sa.column("kind"), sa.column("key"), sa.column("scopes_sha256"), sa.column("on_revoke")
    )
    jobs = sa.table("jobs", sa.column("id"), sa.column("scopes_sha256"))
    scopes: dict[str, list[str]] = defaultdict(list)
    for kind, key, job in database.execute(sa.select(old).order_by(old.c.job_id, old.c.kind, old.c.key)):
        scopes[job].append(f"{kind}:{key}")
    sets: dict[str, list[str]] = {}
    named = []
    for job, of_job in scopes.items():
        digest = sha256("\n".join(of_job).encode()).hexdigest()
        sets[digest] = of_job
        named.append({"job": job, "digest": digest})
    if not named:
        return
    rows = [
        {"kind": scope.partition(":")[0], "key": scope.partition(":")[2], "scopes_sha256": digest, "on_revoke": "stop"}
        for digest, of_set in sets.items()
        for scope in of_set
    ]
    database.execute(sa.insert(new), rows)
    database.execute(
        sa.update(jobs).where(jobs.c.id == sa.bindparam("job")).values(scopes_sha256=sa.bindparam("digest")), named
    )
