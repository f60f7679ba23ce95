"""An installation is found by its id, through whichever connection it was listed.

Revision ID: 0027
Revises: 0026
"""

from __future__ import annotations

from alembic import op

revision: str = "0027"
down_revision: str | None = "0026"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_index("ix_installations_external", "installations", ["external_id"])
