"""Answers to refreshes that come after a revocation or the deletion of a tenant."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, Select, func, literal, or_, select, update

from identity.refresh.intents import IS_REVOKED, MOVES, IntentState, RefreshIntent, intent_of
from identity.refresh.out_of_date import OutOfDate, outdated
from identity.refresh.tables import refresh_intents
from identity.sql.sequence import next_number


def kept_answers(connection: Connection, account: str) -> Sequence[RefreshIntent]:
    """Return the answers that came after a revocation, kept sealed only to revoke them at the provider."""
    columns = refresh_intents.c
    kept = select(refresh_intents).where(
        columns.account_id == account, columns.state == IntentState.DISCARDED, columns.answer_sealed.is_not(None)
    )
    return [intent_of(row) for row in connection.execute(kept)]


def discard_for_good(connection: Connection, of: Select[str], *, now: datetime) -> None:
    """Discard the intents of a deleted tenant's accounts (*of*): no answer is kept, and no later one is stored.

    The caller holds the tenant's lock exclusively.
    """
    columns = refresh_intents.c
    may_store = or_(columns.state.in_(MOVES.sources(IntentState.DISCARDED)), IS_REVOKED)
    ended = update(refresh_intents).where(columns.account_id.in_(of), may_store)
    finished_at = func.coalesce(columns.finished_at, literal(now, columns.finished_at.type))
    settled = func.coalesce(columns.settled, next_number(connection))
    ended = ended.values(state=IntentState.DISCARDED, finished_at=finished_at, settled=settled, answer_sealed=None)
    connection.execute(ended.values(outdated(OutOfDate.DELETED)))
