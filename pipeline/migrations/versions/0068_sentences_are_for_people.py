"""What the code goes by has columns of its own: it was read from sentences for people, which are now for them alone.

Revision ID: 0068
Revises: 0067
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0068"
down_revision: str | None = "0067"
branch_labels: str | None = None
depends_on: str | None = None

# How such a sentence began, or was; of several that fit, the first.
_RECONNECT_CAUSES = {
    "a refresh's outcome is unknown%": "unknown",
    "the provider wants its person to sign in or consent anew%": "person",
    "the provider does not accept its credential any more%": "dead",
    "its grant died while it was suspended": "dead",
    "its token has ended or was refused, and there is nothing to renew it with": "expired",
    "the provider's API refused a freshly renewed token": "refused",
}
_OUT_OF_DATE = {
    "overtaken by a signal": "overtaken",
    "revoked": "revoked",
    "generation moved": "moved",
    "tenant deleted": "deleted",
}
_UNNAMED = "401 without an error code"

_accounts = sa.table("accounts", *map(sa.column, ("state", "reason", "reconnect_cause")))
_intents = sa.table("refresh_intents", *map(sa.column, ("state", "outcome", "code", "out_of_date")))
_attempts = sa.table("attempts", *map(sa.column, ("state", "error", "counts_as")))
_deliveries = sa.table("deliveries", *map(sa.column, ("outcome", "reason", "left_out")))
_jobs = sa.table("jobs", *map(sa.column, ("id", "reason")))


def upgrade() -> None:
    op.add_column("accounts", sa.Column("reconnect_cause", sa.String(16)))
    op.add_column("refresh_intents", sa.Column("code", sa.String(64)))
    op.add_column("refresh_intents", sa.Column("out_of_date", sa.String(16)))
    op.add_column("attempts", sa.Column("counts_as", sa.String(16)))
    op.add_column("deliveries", sa.Column("left_out", sa.String(16)))
    _read_accounts()
    _read_refreshes()
    _read_attempts()
    _read_deliveries()
    _read_jobs()


def _read_accounts() -> None:
    columns = _accounts.c
    needs_person = sa.update(_accounts).where(columns.state == "needs_reconnect")
    for sentence, cause in _RECONNECT_CAUSES.items():
        op.execute(needs_person.where(columns.reason.like(sentence)).values(reconnect_cause=cause))


def _read_refreshes() -> None:
    """A code has no space, and none of ours that tells of no refusal stands in these states."""
    columns = _intents.c
    for sentence, why in _OUT_OF_DATE.items():
        # Another's code may be `revoked`, too: only what was discarded is so because of a revocation.
        discarded = columns.state == "discarded" if why in ("revoked", "moved", "deleted") else sa.true()
        op.execute(sa.update(_intents).where(columns.outcome == sentence, discarded).values(out_of_date=why))
    refused = sa.update(_intents).where(columns.state.in_(["failed", "unknown", "dead"]))
    op.execute(refused.where(columns.outcome.not_like("% %")).values(code=columns.outcome))
    op.execute(refused.where(columns.outcome == _UNNAMED).values(code="unnamed_401"))


def _read_attempts() -> None:
    columns = _attempts.c
    unspent = sa.update(_attempts).where(columns.error.like("spends no attempt: %"))
    op.execute(unspent.values(counts_as="unspent"))
    unsent = sa.update(_attempts).where(columns.state == "no_effect", columns.error == "not sent")
    op.execute(unsent.values(counts_as="unsent"))


def _read_deliveries() -> None:
    columns = _deliveries.c
    unlisted = sa.update(_deliveries).where(columns.outcome == "ignored")
    op.execute(unlisted.where(columns.reason.like("%lists its installations%")).values(left_out="unlisted"))
    unreached = sa.update(_deliveries).where(columns.outcome == "signal")
    op.execute(
        unreached.where(columns.reason.like("%if one has, end its accounts by hand%")).values(left_out="unreached")
    )


def _read_jobs() -> None:
    """A reason sends nobody any more to where it is told, which took it off again."""
    columns = _jobs.c
    as_shown = sa.literal(", as `aswhom jobs show ") + columns.id + sa.literal("` tells how")
    asked = sa.update(_jobs).where(columns.reason.like("%` tells how"))
    op.execute(asked.values(reason=sa.func.replace(columns.reason, as_shown, "")))
