"""Which withdrawals, and so which revocations, a provider is to be asked about now. All found by what is still open."""

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
from identity.withdrawals import Origin, WithdrawalState
from identity.withdrawals.tables import withdrawals
from pipeline import metrics
from pipeline.revocation.tables import is_of_any, revocations

#: What a refresh won that was discarded, and nobody has taken yet.
KEPT = is_one(refresh_intents.c.state, IntentState.DISCARDED) & refresh_intents.c.answer_sealed.is_not(None)
_PENDING = is_one(withdrawals.c.state, WithdrawalState.PENDING)
#: What was taken before a revocation could, and nobody has said yet on whose receipt it is.
UNSAID = _PENDING & withdrawals.c.revocation_id.is_(None) & (withdrawals.c.origin != Origin.CONNECT)


@dataclass(frozen=True, kw_only=True)
class Line:
    """What stands in one line at a provider: asked by one provider connection, for one kind of credential, one way."""

    connection: str
    credential: str
    renewal: bool  # what renews a token is asked about in a line of its own, which may be much slower


@dataclass(frozen=True, kw_only=True)
class Due:
    """A withdrawal that is due, and the line that it stands in."""

    id: str
    line: Line


def due_of(
    connection: Connection, revocation: str | None, *, now: datetime, besides: Collection[Line], limit: int
) -> list[Due]:
    """What is due of a revocation, or of what refused connects had won; first what has been due for longest.

    What stands in the lines *besides* is left out.
    """
    columns = withdrawals.c
    # As `is_renewal_alone` tells of a grant's, which has no expiry where a signal dropped its access token.
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
        Due(id=row.id, line=Line(connection=row.connection_id, credential=row.credential, renewal=bool(row.renewal)))
        for row in connection.execute(found)
    ]


def is_pending(connection: Connection, revocation: str) -> bool:
    """Whether something of a revocation is still to be taken, or to be asked about, now or later."""
    columns = withdrawals.c
    to_take = select(revocations.c.id).where(revocations.c.id == revocation, revocations.c.collected_at.is_(None))
    pending = select(columns.id).where(_PENDING, columns.revocation_id == revocation)
    return any(connection.execute(some.limit(1)).first() is not None for some in (to_take, pending))


def overdue(connection: Connection, now: datetime, limit: int) -> list[str]:
    """The revocations of which something is due. First those with the least of it: they wait for no large one.

    Half of them are those of which something has been due for longest: no large one waits for ever more small ones.
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
    """The revocations that have a receipt, and of whose scope not every credential was taken yet."""
    found = select(revocations.c.id).where(revocations.c.collected_at.is_(None), revocations.c.revision > 0)
    return list(connection.execute(found.limit(limit)).scalars())


def late(connection: Connection, limit: int) -> list[str]:
    """The revocations that reach tokens which came when their receipts were written already: of the oldest first."""
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
    """The revocation that ended a consent, once it has come as far as its calls in flight."""
    reaches = is_of_any(get_account(connection, account).key.scopes)
    ended = select(revocations.c.id).where(reaches, revocations.c.number >= consented, revocations.c.revision > 0)
    return connection.execute(ended.order_by(revocations.c.number).limit(1)).scalar_one_or_none()


def newest_before(connection: Connection, account: AccountKey, number: int) -> int:
    """The number of the last revocation before that one which ended an account's consents; 0: there is none."""
    reaches = is_of_any(account.scopes)
    earlier = select(func.max(revocations.c.number)).where(reaches, revocations.c.number < number)
    return connection.execute(earlier).scalar_one() or 0


def measure_withdrawals(store: Store) -> None:
    """Set the gauges of what is pending and stuck; housekeeping alone does."""
    with measuring(metrics.WITHDRAWALS):
        for state in (WithdrawalState.PENDING, WithdrawalState.STUCK):
            metrics.WITHDRAWALS.labels(str(state)).set(store.read(partial(_count, state=state)))


def _is_due(now: datetime) -> ColumnElement[bool]:
    return _PENDING & (withdrawals.c.due_at <= now)


def _count(connection: Connection, *, state: WithdrawalState) -> int:
    counted = select(func.count()).select_from(withdrawals).where(is_one(withdrawals.c.state, state))
    return int(connection.execute(counted).scalar_one())
