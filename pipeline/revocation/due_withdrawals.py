"""Which withdrawals, and so which revocations, a provider is to be asked about now. All found by what is still open."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import partial

from sqlalchemy import ColumnElement, Connection, func, select

from identity.accounts import get_account
from identity.model import ScopeKind
from identity.store import Store
from identity.tables import refresh_intents
from identity.withdrawals import Origin, WithdrawalState
from identity.withdrawals.tables import withdrawals
from pipeline import metrics
from pipeline.ledger.indexed import is_one
from pipeline.revocation.tables import revocations

#: What a refresh won that was discarded, and nobody has taken yet.
KEPT = (refresh_intents.c.state == "discarded") & refresh_intents.c.answer_sealed.is_not(None)
_PENDING = is_one(withdrawals.c.state, WithdrawalState.PENDING)


def due_of(connection: Connection, revocation: str, now: datetime) -> list[str]:
    """What is due of a revocation."""
    columns = withdrawals.c
    found = select(columns.id).where(columns.revocation_id == revocation, _is_due(now))
    return list(connection.execute(found.order_by(columns.id)).scalars())


def leftovers(connection: Connection, now: datetime, limit: int) -> list[str]:
    """What is due of what refused connects had won."""
    columns = withdrawals.c
    found = select(columns.id).where(_is_due(now), columns.revocation_id.is_(None), columns.origin == Origin.CONNECT)
    return list(connection.execute(found.order_by(columns.due_at).limit(limit)).scalars())


def overdue(connection: Connection, now: datetime, limit: int) -> list[str]:
    """The revocations of which something is due."""
    columns = withdrawals.c
    found = select(columns.revocation_id).where(_is_due(now), columns.revocation_id.is_not(None)).distinct()
    return list(connection.execute(found.limit(limit)).scalars())


def late(connection: Connection, limit: int) -> list[str]:
    """The revocations that reach tokens which came when their receipts were written already."""
    won = select(refresh_intents.c.account_id, refresh_intents.c.consented).where(KEPT).limit(limit)
    columns = withdrawals.c
    of_none = _PENDING & columns.revocation_id.is_(None) & (columns.origin != Origin.CONNECT)
    minted = select(columns.account_id, columns.consented).where(of_none).limit(limit)
    found: Iterable[str | None] = [
        _first_to_reach(connection, one.account_id, consented=one.consented)
        for some in (won, minted)
        for one in connection.execute(some).all()
    ]
    return sorted({one for one in found if one is not None})


def _first_to_reach(connection: Connection, account: str, *, consented: int) -> str | None:
    """The revocation that ended a consent, once it has come as far as its calls in flight."""
    key = get_account(connection, account).key
    named = (
        ((revocations.c.kind == ScopeKind.TENANT) & (revocations.c.key == key.tenant))
        | ((revocations.c.kind == ScopeKind.CONNECTION) & (revocations.c.key == key.connection))
        | ((revocations.c.kind == ScopeKind.USER) & (revocations.c.key == key.principal))
        | ((revocations.c.kind == ScopeKind.ACCOUNT) & (revocations.c.key == str(key)))
    )
    ended = select(revocations.c.id).where(named, revocations.c.number >= consented, revocations.c.revision > 0)
    return connection.execute(ended.order_by(revocations.c.number).limit(1)).scalar_one_or_none()


def measure_withdrawals(store: Store) -> None:
    """Set the gauges of what is pending and stuck; housekeeping alone does."""
    for state in (WithdrawalState.PENDING, WithdrawalState.STUCK):
        metrics.WITHDRAWALS.labels(str(state)).set(store.read(partial(_count, state=state)))


def _is_due(now: datetime) -> ColumnElement[bool]:
    return _PENDING & (withdrawals.c.due_at <= now)


def _count(connection: Connection, *, state: WithdrawalState) -> int:
    counted = select(func.count()).select_from(withdrawals).where(is_one(withdrawals.c.state, state))
    return int(connection.execute(counted).scalar_one())
