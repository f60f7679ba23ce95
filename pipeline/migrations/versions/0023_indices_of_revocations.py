"""The revocations of a scope and the accounts of a principal are found by an index.

Revision ID: 0023
Revises: 0022
"""

from __future__ import annotations

from alembic import op

revision: str = "0023"
down_revision: str | None = "0022"
branch_labels: str | None = None
depends_on: str | None = None

#: Name, table, columns.
_INDICES: tuple[tuple[str, str, list[str]], ...] = (
    ("ix_revocations_scope", "revocations", ["kind", "key", "number"]),
    ("ix_accounts_principal", "accounts", ["principal_id"]),
)


def upgrade() -> None:
    for name, table, columns in _INDICES:
        op.create_index(name, table, columns)
