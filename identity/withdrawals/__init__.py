"""Withdrawals: credentials that were revoked here, on their way to their end at the provider too.

A withdrawal takes the ciphertext out of the grant, or out of a refresh that ended after the revocation, so a later
consent neither overwrites it nor is reached by it. The ciphertext is shredded when nothing is asked any more.

All functions run inside the caller's transaction, and `claim` under the account's exclusive lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum, auto

from sqlalchemy import Connection, Row, select, update

from identity.hold import IS_HELD
from identity.model import Credential
from identity.refresh.intents import IS_UNSETTLED, IntentState
from identity.refresh.tables import refresh_intents
from identity.sql.state_machine import Moves
from identity.withdrawals.tables import withdrawals


class WithdrawalState(StrEnum):
    """How far the end of a credential at its provider has come."""

    HELD = "held"  # in use: to be asked about once it is revoked
    PENDING = "pending"  # to be asked, by `due_at`
    DONE = "done"  # the provider says that it has ended
    STUCK = "stuck"  # an operator must act: `aswhom revocations retry`
    GIVEN_UP = "given_up"  # by an operator, or its tenant was deleted: it may still be valid at the provider
    NOT_ASKED = "not_asked"  # there is nobody to ask, or nothing to ask for


MOVES: Moves[WithdrawalState] = Moves(
    "withdrawal",
    {
        WithdrawalState.HELD: frozenset({WithdrawalState.PENDING}),
        WithdrawalState.PENDING: frozenset({WithdrawalState.DONE, WithdrawalState.STUCK, WithdrawalState.NOT_ASKED}),
        WithdrawalState.STUCK: frozenset({WithdrawalState.PENDING, WithdrawalState.GIVEN_UP}),
        WithdrawalState.DONE: frozenset(),
        WithdrawalState.GIVEN_UP: frozenset(),
        WithdrawalState.NOT_ASKED: frozenset(),
    },
)
#: What is left of what was asked about when nothing is asked any more.
SHREDDED = {"access_sealed": None, "refresh_sealed": None, "answer_sealed": None, "kept_until": None}


class Origin(StrEnum):
    """Where the credential comes from."""

    GRANT = "grant"
    REFRESH = "refresh"  # a refresh that was on the wire won it after the revocation
    CONFINED = "confined"  # it was minted for one repository, and is in no grant
    CONNECT = "connect"  # a connect had won it before it was refused: no revocation's, `identity.connect.leftovers`


@dataclass(frozen=True, kw_only=True)
class Withdrawal:
    """One credential that is to end."""

    id: str
    account: str
    origin: Origin
    credential: Credential
    generation: int
    consented: int
    revocation: str | None
    state: WithdrawalState
    tries: int
    keyless: int  # how often whoever was to ask had no key to its ciphertext
    expires_at: datetime | None
    created_at: datetime
    ended: str | None = None  # which of its two tokens has ended there, and is not asked about any more
    external_id: str | None = None  # of who consented, in a connect that was refused
    client_id: str | None = None  # of the client that won it there; None: the connection's
    access_sealed: bytes | None = field(default=None, repr=False)
    refresh_sealed: bytes | None = field(default=None, repr=False)
    answer_sealed: bytes | None = field(default=None, repr=False)


def get_withdrawal(connection: Connection, withdrawal: str) -> Withdrawal | None:
    """The withdrawal of that id."""
    row = connection.execute(select(withdrawals).where(withdrawals.c.id == withdrawal)).one_or_none()
    return None if row is None else _withdrawal(row)


def claim(connection: Connection, withdrawal: str, *, now: datetime, until: datetime) -> Withdrawal | None:
    """Let nobody else ask before *until*, and count the try; None: it is not due, or the installation is held."""
    columns = withdrawals.c
    due = (columns.id == withdrawal) & (columns.state == WithdrawalState.PENDING) & (columns.due_at <= now)
    due &= ~IS_HELD
    claimed = update(withdrawals).where(due).values(due_at=until, tries=columns.tries + 1, kept_until=None)
    return get_withdrawal(connection, withdrawal) if connection.execute(claimed).rowcount == 1 else None


def settle(connection: Connection, *ids: str, to: WithdrawalState, reason: str | None, now: datetime) -> int:
    """Move withdrawals that are in a state from which that is allowed; how many. Their end shreds the ciphertext."""
    moved = update(withdrawals).where(withdrawals.c.id.in_(ids), withdrawals.c.state.in_(MOVES.sources(to)))
    values: dict[str, object] = {
        "state": to,
        "reason": reason,
        "finished_at": None if to not in MOVES.terminal else now,
    }
    if to in MOVES.terminal:
        values |= SHREDDED
    return connection.execute(moved.values(values)).rowcount


class Counts(Enum):
    """What a claim, which has counted as a try, counts for after all."""

    TRY = auto()
    NOTHING = auto()  # nothing was sent
    KEYLESS = auto()  # nothing was sent, for want of a vault key that another host may have: counted by itself


def postpone(connection: Connection, *ids: str, due_at: datetime, reason: str, counts: Counts = Counts.TRY) -> None:
    """Ask again at *due_at*."""
    columns = withdrawals.c
    waits = update(withdrawals).where(columns.id.in_(ids), columns.state == WithdrawalState.PENDING)
    waits = waits.values(due_at=due_at, reason=reason)
    if counts is not Counts.TRY:
        waits = waits.values(tries=columns.tries - 1)
    connection.execute(waits.values(keyless=columns.keyless + 1) if counts is Counts.KEYLESS else waits)


def note_ended(connection: Connection, withdrawal: str, token: str) -> None:
    """One of its two tokens has ended, and the other is still to end: from now on that alone is asked about.

    A server may refuse a token that it has ended in words that do not say so.
    """
    columns = withdrawals.c
    half = update(withdrawals).where(columns.id == withdrawal, columns.state == WithdrawalState.PENDING)
    connection.execute(half.values(ended=token))


def ask_again(connection: Connection, revocation: str, *, now: datetime) -> int:
    """An operator has acted: what is stuck of a revocation is pending again. How many."""
    columns = withdrawals.c
    stuck = (columns.revocation_id == revocation) & (columns.state == WithdrawalState.STUCK)
    again = update(withdrawals).where(stuck)
    values = {"state": WithdrawalState.PENDING, "tries": 0, "keyless": 0, "due_at": now, "reason": None}
    return connection.execute(again.values(values)).rowcount


def of_account(connection: Connection, account: str, *states: WithdrawalState) -> list[Withdrawal]:
    """An account's withdrawals in these states."""
    found = select(withdrawals).where(withdrawals.c.account_id == account, withdrawals.c.state.in_(states))
    return [_withdrawal(row) for row in connection.execute(found.order_by(withdrawals.c.id))]


def is_superseded(connection: Connection, withdrawal: Withdrawal) -> bool:
    """Whether a refresh of the same consent has won what replaced it."""
    columns = withdrawals.c
    won = select(columns.id).where(
        columns.account_id == withdrawal.account,
        columns.origin == Origin.REFRESH,
        columns.consented == withdrawal.consented,
    )
    return connection.execute(won.limit(1)).first() is not None


def has_lost_answer(connection: Connection, withdrawal: Withdrawal) -> bool:
    """Whether a refresh presented it and its answer never came: a newer pair may live there that nobody here knows."""
    if withdrawal.origin is not Origin.GRANT or is_superseded(connection, withdrawal):
        return False
    columns = refresh_intents.c
    lost = select(columns.id).where(
        columns.account_id == withdrawal.account,
        columns.generation == withdrawal.generation,
        columns.state.in_([IntentState.UNKNOWN, IntentState.DISCARDED]),
        columns.presented > 0,
        columns.answer_sealed.is_(None),
    )
    return connection.execute(lost.limit(1)).first() is not None


def is_refreshing(connection: Connection, account: str) -> bool:
    """Whether a refresh of the account has not ended: it may yet win a token."""
    columns = refresh_intents.c
    under_way = select(columns.id).where(columns.account_id == account, IS_UNSETTLED)
    return connection.execute(under_way.limit(1)).first() is not None


def _withdrawal(row: Row[tuple[object, ...]]) -> Withdrawal:
    return Withdrawal(
        id=row.id,
        account=row.account_id,
        origin=Origin(row.origin),
        credential=Credential(row.credential),
        generation=row.generation,
        consented=row.consented,
        revocation=row.revocation_id,
        state=WithdrawalState(row.state),
        tries=row.tries,
        keyless=row.keyless,
        expires_at=row.expires_at,
        created_at=row.created_at,
        ended=row.ended,
        external_id=row.external_id,
        client_id=row.client_id,
        access_sealed=row.access_sealed,
        refresh_sealed=row.refresh_sealed,
        answer_sealed=row.answer_sealed,
    )
