"""The signing key can be rotated: who signed before, as the next key says it.

Revision ID: 0019
Revises: 0018
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0019"
down_revision: str | None = "0018"
branch_labels: str | None = None
depends_on: str | None = None

TABLE = "signing_handovers"


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("kid", sa.String(64), nullable=False),
        sa.Column("former", sa.String(64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("pruned", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("signature", sa.String(100), nullable=False),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_signing_handovers")),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"create function {TABLE}_append_only() returns trigger language plpgsql as $$ begin"
            f" raise exception '{TABLE} is append-only' using errcode = 'integrity_constraint_violation'; end $$"
        )
        function = f"execute function {TABLE}_append_only()"
        op.execute(f"create trigger {TABLE}_no_change before update or delete on {TABLE} for each row {function}")
        op.execute(f"create trigger {TABLE}_no_truncate before truncate on {TABLE} for each statement {function}")
        return
    refuse = f"begin select raise(abort, '{TABLE} is append-only'); end"
    op.execute(f"create trigger {TABLE}_no_update before update on {TABLE} {refuse}")
    op.execute(f"create trigger {TABLE}_no_delete before delete on {TABLE} {refuse}")
    # SQLite's INSERT OR REPLACE deletes without asking the trigger of DELETE.
    there = f"exists (select 1 from {TABLE} where kid = new.kid or rowid = new.rowid)"
    op.execute(f"create trigger {TABLE}_no_replace before insert on {TABLE} when {there} {refuse}")
