"""The attempts of a step have different numbers, and their errors are as they came.

Revision ID: 0071
Revises: 0070
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0071"
down_revision: str | None = "0070"
branch_labels: str | None = None
depends_on: str | None = None

_NOTE = "spends no attempt: "  # said by `counts_as`

_attempts = sa.table("attempts", *map(sa.column, ("id", "step_id", "number", "opened", "counts_as", "error")))


def upgrade() -> None:
    _renumber()
    op.drop_index("ix_attempts_step", "attempts")
    op.create_index("ix_attempts_step", "attempts", ["step_id", "number"], unique=True)
    of_note = _attempts.c.error.startswith(_NOTE)
    error = sa.func.substr(_attempts.c.error, len(_NOTE) + 1)
    op.execute(sa.update(_attempts).where(_attempts.c.counts_as == "unspent", of_note).values(error=error))


def _renumber() -> None:
    """Number the attempts anew, in the order of their openings, in steps where two have one number."""
    twice = sa.select(_attempts.c.step_id).group_by(_attempts.c.step_id, _attempts.c.number)
    other = _attempts.alias()
    earlier = sa.or_(
        other.c.opened < _attempts.c.opened,
        sa.and_(other.c.opened == _attempts.c.opened, other.c.id <= _attempts.c.id),
    )
    place = sa.select(sa.func.count()).where(other.c.step_id == _attempts.c.step_id, earlier).scalar_subquery()
    numbered_twice = _attempts.c.step_id.in_(twice.having(sa.func.count() > 1))
    op.execute(sa.update(_attempts).where(numbered_twice).values(number=place))
