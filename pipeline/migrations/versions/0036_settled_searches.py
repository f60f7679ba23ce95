"""Searches for an effect that were given up are over: they have none of their own that anybody could ask about.

Revision ID: 0036
Revises: 0035
"""

from __future__ import annotations

from alembic import op

revision: str = "0036"
down_revision: str | None = "0035"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        number = "nextval('ledger_number_sequence')"
    else:
        op.execute("update ledger_numbers set value = value + 1")
        number = "(select value from ledger_numbers)"
    op.execute(
        f"update attempts set state = 'no_effect', closed = {number} where state = 'unknown' and purpose = 'probe'"
    )
