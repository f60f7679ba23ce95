"""The audit refuses changes, and its chain is verified with the public key alone.

The seals of earlier versions were made with a secret key, and are dropped: the sealer seals every row anew. Verify the
chain before the upgrade (`aswhom audit verify`) if it matters what was altered before.

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | None = None
depends_on: str | None = None

# What each table lets go, besides nothing.
_PRUNED = "(select max(seq) from audit_prunings)"
_MAY_GO = {
    "audit": f"exists (select 1 from audit_seals where audit_id = old.id and seq <= {_PRUNED})",
    "audit_seals": f"old.seq <= {_PRUNED}",
    "audit_prunings": f"old.seq < {_PRUNED}",  # the newest one stays
}
# SQLite's INSERT OR REPLACE deletes without asking the triggers of DELETE.
_IS_THERE = {
    "audit": "id = new.id or rowid = new.rowid",
    "audit_seals": "seq = new.seq or audit_id = new.audit_id or rowid = new.rowid",
    "audit_prunings": "seq = new.seq or rowid = new.rowid",
}


def upgrade() -> None:
    op.drop_table("audit_seals")
    op.create_table(
        "audit_seals",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("audit_id", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("sealed_at", sa.BigInteger(), nullable=False),
        sa.Column("signature", sa.String(100), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_seals")),
        sa.UniqueConstraint("audit_id", name=op.f("uq_audit_seals_audit_id")),
    )
    op.create_table(
        "audit_prunings",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("signature", sa.String(100), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_prunings")),
    )
    if op.get_bind().dialect.name == "postgresql":
        _guard_postgresql()
    else:
        _guard_sqlite()


def _guard_sqlite() -> None:
    for table, may_go in _MAY_GO.items():
        refuse = f"begin select raise(abort, '{table} is append-only'); end"
        op.execute(f"create trigger {table}_no_update before update on {table} {refuse}")
        op.execute(f"create trigger {table}_no_delete before delete on {table} when coalesce({may_go}, 0) = 0 {refuse}")
        op.execute(
            f"create trigger {table}_no_replace before insert on {table}"
            f" when exists (select 1 from {table} where {_IS_THERE[table]}) {refuse}"
        )


def _guard_postgresql() -> None:
    for table, may_go in _MAY_GO.items():
        op.execute(
            f"create function {table}_append_only() returns trigger language plpgsql as $$ begin"
            f" if tg_op = 'DELETE' then if {may_go} then return old; end if; end if;"
            f" raise exception '{table} is append-only' using errcode = 'integrity_constraint_violation'; end $$"
        )
        function = f"execute function {table}_append_only()"
        op.execute(f"create trigger {table}_no_change before update or delete on {table} for each row {function}")
        op.execute(f"create trigger {table}_no_truncate before truncate on {table} for each statement {function}")
