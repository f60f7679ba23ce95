"""Due withdrawals, and the revocations they belong to. Every query is by an index on open rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from sqlalchemy import ColumnElement, Connection, case, func, select

from identity.accounts.states import get_account
from identity.measuring import measuring
from identity.model import AccountKey
from identity.refresh.intents import IntentState
from identity.refresh.tables import refresh_intents
from identity.sql.columns import is_one
from identity.sql.store import Store
from identity.tables import accounts
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawal import Origin, WithdrawalState
from pipeline import metrics
from pipeline.revocation.tables import is_of_any, revocations

#: Tokens that a refresh won and discarded, and that nobody has taken yet.
KEPT = is_one(refresh_intents.c.state, IntentState.DISCARDED) & refresh_intents.c.answer_sealed.is_not(None)
_PENDING = is_one(withdrawals.c.state, WithdrawalState.PENDING)
#: Withdrawals taken before a revocation could take them, and not yet assigned to a receipt.
UNSAID = _PENDING & withdrawals.c.revocation_id.is_(None) & (withdrawals.c.origin != Origin.CONNECT)


@dataclass(frozen=True, kw_only=True)
class ProviderQueue:
    """A queue at a provider: one provider connection, kind of credential and way of asking."""

    connection: str
    credential: str
    renewal: bool  # only its refresh token is left: those have a separate line, which may be much slower


@dataclass(frozen=True, kw_only=True)
class Due:
    """A due withdrawal, and the line it waits in."""

    id: str
    line: ProviderQueue


def due_of(
    connection: Connection, revocation: str | None, *, now: datetime, besides: Collection[ProviderQueue], limit: int
) -> list[Due]:
    """Return the due withdrawals of a revocation, or of refused connects if None, longest due first.

    *besides*: lines to leave out.
    """
    columns = withdrawals.c
    # Matches `is_renewal_alone` for grants: a grant whose access token was dropped by a signal has no expiry.
    dropped = (columns.origin == Origin.GRANT) & columns.access_sealed.is_(None)
    renewed = columns.refresh_sealed.is_not(None) & (dropped | (columns.expires_at <= now))
    renewal = case((renewed, 1), else_=0)
    whose = columns.revocation_id == revocation
    if revocation is None:
        whose = columns.revocation_id.is_(None) & (columns.origin == Origin.CONNECT)
    found = (
        select(columns.id, accounts.c.connection_id, columns.credential, renewal.label("renewal"))
        .join(accounts, accounts.c.id == columns.account_id)
        .where(whose, _is_due(now))
        .order_by(columns.due_at, columns.id)
        .limit(limit)
    )
    for line in besides:
        of_it = (accounts.c.connection_id == line.connection) & (columns.credential == line.credential)
        found = found.where(~(of_it & (renewal == int(line.renewal))))
    return [
        Due(
            id=row.id,
            line=ProviderQueue(connection=row.connection_id, credential=row.credential, renewal=bool(row.renewal)),
        )
        for row in connection.execute(found)
    ]


def is_pending(connection: Connection, revocation: str) -> bool:
    """True if something of a revocation is still to be taken or to be asked about, now or later."""
    columns = withdrawals.c
    to_take = select(revocations.c.id).where(revocations.c.id == revocation, revocations.c.collected_at.is_(None))
    pending = select(columns.id).where(_PENDING, columns.revocation_id == revocation)
    return any(connection.execute(some.limit(1)).first() is not None for some in (to_take, pending))


def overdue(connection: Connection, now: datetime, limit: int) -> list[str]:
    """Return the revocations with due withdrawals, those with the fewest first.

    The small ones need not wait for a large one. Half of the places go to those due longest, so that a large one need
    not wait for ever more small ones.
    """
    columns = withdrawals.c
    oldest = func.min(columns.due_at)
    found = select(columns.revocation_id).where(_is_due(now), columns.revocation_id.is_not(None))
    found = found.group_by(columns.revocation_id)
    least = list(connection.execute(found.order_by(func.count(), oldest).limit(limit)).scalars())
    if len(least) < limit:
        return least
    longest = list(connection.execute(found.order_by(oldest).limit(limit // 2)).scalars())
    others = [one for one in least if one not in longest]
    return [*others[: limit - len(longest)], *longest]


def uncollected(connection: Connection, limit: int) -> list[str]:
    """Return the revocations that have a receipt although not every credential was taken yet."""
    found = select(revocations.c.id).where(revocations.c.collected_at.is_(None), revocations.c.revision > 0)
    return list(connection.execute(found.limit(limit)).scalars())


def late(connection: Connection, limit: int) -> list[str]:
    """Return the revocations that reach tokens which came after their receipts, looking at the oldest tokens first."""
    intents, columns = refresh_intents.c, withdrawals.c
    won = select(intents.account_id, intents.consented).where(KEPT).order_by(intents.opened)
    minted = select(columns.account_id, columns.consented).where(UNSAID).order_by(columns.created_at)
    found: Iterable[str | None] = [
        _first_to_reach(connection, one.account_id, consented=one.consented)
        for some in (won, minted)
        for one in connection.execute(some.limit(limit)).all()
    ]
    return sorted({one for one in found if one is not None})


def _first_to_reach(connection: Connection, account: str, *, consented: int) -> str | None:
    """Return the first revocation that ended a consent, if it has a receipt."""
    reaches = is_of_any(get_account(connection, account).key.scopes)
    ended = select(revocations.c.id).where(reaches, revocations.c.number >= consented, revocations.c.revision > 0)
    return connection.execute(ended.order_by(revocations.c.number).limit(1)).scalar_one_or_none()


def newest_before(connection: Connection, account: AccountKey, number: int) -> int:
    """Return the number of the last revocation before *number* that ended an account's consents; 0: there is none."""
    reaches = is_of_any(account.scopes)
    earlier = select(func.max(revocations.c.number)).where(reaches, revocations.c.number < number)
    return connection.execute(earlier).scalar_one() or 0


def measure_withdrawals(store: Store) -> None:
    """Set the gauges of pending and stuck withdrawals. Only housekeeping does."""
    with measuring(metrics.WITHDRAWALS):
        for state in (WithdrawalState.PENDING, WithdrawalState.STUCK):
            metrics.WITHDRAWALS.labels(str(state)).set(store.read(partial(_count, state=state)))


def _is_due(now: datetime) -> ColumnElement[bool]:
    return _PENDING & (withdrawals.c.due_at <= now)


def _count(connection: Connection, *, state: WithdrawalState) -> int:
    counted = select(func.count()).select_from(withdrawals).where(is_one(withdrawals.c.state, state))
    return int(connection.execute(counted).scalar_one())
