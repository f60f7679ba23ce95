"""A transmitter may have several audiences, tell of another issuer's subjects, and leave the typ of its tokens out.

Revision ID: 0047
Revises: 0046
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0047"
down_revision: str | None = "0046"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("transmitters", sa.Column("other_audiences", sa.JSON()))
    op.add_column("transmitters", sa.Column("subject_issuer", sa.Text()))
    op.add_column("transmitters", sa.Column("plain_jwt", sa.Boolean(), nullable=False, server_default=sa.false()))
