"""Withdrawals: credentials that were revoked here and must still be ended at the provider.

A withdrawal moves the ciphertext out of the grant, or out of a refresh that ended after the revocation. A later consent
neither overwrites it nor is affected by it. The ciphertext is shredded once nothing more is asked.

All functions run inside the caller's transaction; `claim` also needs the account's exclusive lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum, auto

from sqlalchemy import Connection, Row, Select, select, update

from identity.hold import IS_HELD
from identity.model import Credential
from identity.refresh.intents import IS_UNSETTLED, IntentState
from identity.refresh.tables import refresh_intents
from identity.sql.state_machine import Moves
from identity.withdrawals.tables import withdrawals


class WithdrawalState(StrEnum):
    """Progress of ending a credential at its provider."""

    HELD = "held"  # in use; becomes pending once it is revoked
    PENDING = "pending"  # the provider is to be asked at `due_at`
    DONE = "done"  # the provider says that it has ended
    STUCK = "stuck"  # an operator must act: `aswhom revocations retry`
    GIVEN_UP = "given_up"  # by an operator, or its tenant was deleted: it may still be valid at the provider
    NOT_ASKED = "not_asked"  # nobody to ask, or nothing to ask about


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
#: Column values that shred a withdrawal about which nothing more is asked.
SHREDDED = {"access_sealed": None, "refresh_sealed": None, "answer_sealed": None, "kept_until": None}


class Origin(StrEnum):
    """The source of the credential."""

    GRANT = "grant"
    REFRESH = "refresh"  # obtained after the revocation by a refresh in flight
    CONFINED = "confined"  # minted for one repository; in no grant
    CONNECT = "connect"  # obtained by a connect that was refused: `identity.connect.leftovers`; no revocation


@dataclass(frozen=True, kw_only=True)
class Withdrawal:
    """One credential to be ended at its provider."""

    id: str
    account: str
    origin: Origin
    credential: Credential
    generation: int
    consented: int
    revocation: str | None
    state: WithdrawalState
    tries: int
    keyless: int  # tries on hosts that lacked the vault key
    expires_at: datetime | None
    created_at: datetime
    ended: str | None = None  # the one of its two tokens that has ended there already
    external_id: str | None = None  # of the person who consented in a refused connect
    client_id: str | None = None  # of the client that obtained it; None: the connection's
    access_sealed: bytes | None = field(default=None, repr=False)
    refresh_sealed: bytes | None = field(default=None, repr=False)
    answer_sealed: bytes | None = field(default=None, repr=False)


def get_withdrawal(connection: Connection, withdrawal: str) -> Withdrawal | None:
    """Return the withdrawal with that id, or None."""
    row = connection.execute(select(withdrawals).where(withdrawals.c.id == withdrawal)).one_or_none()
    return None if row is None else _withdrawal(row)


def claim(connection: Connection, withdrawal: str, *, now: datetime, until: datetime) -> Withdrawal | None:
    """Claim a due withdrawal until *until* and count a try. None if it is not due or the installation is held."""
    columns = withdrawals.c
    due = (columns.id == withdrawal) & (columns.state == WithdrawalState.PENDING) & (columns.due_at <= now)
    due &= ~IS_HELD
    claimed = update(withdrawals).where(due).values(due_at=until, tries=columns.tries + 1, kept_until=None)
    return get_withdrawal(connection, withdrawal) if connection.execute(claimed).rowcount == 1 else None


def settle(connection: Connection, *ids: str, to: WithdrawalState, reason: str | None, now: datetime) -> int:
    """Move withdrawals from any allowed state; return how many. A terminal state shreds the ciphertext."""
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
    """The final count of a claim, which was counted as a try."""

    TRY = auto()
    NOTHING = auto()  # nothing was sent
    KEYLESS = auto()  # nothing was sent: this host lacks a vault key that another may have. Counted separately


def postpone(connection: Connection, *ids: str, due_at: datetime, reason: str, counts: Counts = Counts.TRY) -> None:
    """Schedule the next try at *due_at*."""
    columns = withdrawals.c
    waits = update(withdrawals).where(columns.id.in_(ids), columns.state == WithdrawalState.PENDING)
    waits = waits.values(due_at=due_at, reason=reason)
    if counts is not Counts.TRY:
        waits = waits.values(tries=columns.tries - 1)
    connection.execute(waits.values(keyless=columns.keyless + 1) if counts is Counts.KEYLESS else waits)


def note_ended(connection: Connection, withdrawal: str, token: str) -> None:
    """Note that one of the two tokens has ended; from now on only the other is asked about.

    A server may refuse a token that it has ended without saying that it has.
    """
    columns = withdrawals.c
    half = update(withdrawals).where(columns.id == withdrawal, columns.state == WithdrawalState.PENDING)
    connection.execute(half.values(ended=token))


def ask_again(connection: Connection, revocation: str, *, now: datetime) -> int:
    """Make a revocation's stuck withdrawals pending again after an operator acted; return how many."""
    columns = withdrawals.c
    stuck = (columns.revocation_id == revocation) & (columns.state == WithdrawalState.STUCK)
    again = update(withdrawals).where(stuck)
    values = {"state": WithdrawalState.PENDING, "tries": 0, "keyless": 0, "due_at": now, "reason": None}
    return connection.execute(again.values(values)).rowcount


def of_account(connection: Connection, account: str, *states: WithdrawalState) -> list[Withdrawal]:
    """Return an account's withdrawals in these states."""
    found = select(withdrawals).where(withdrawals.c.account_id == account, withdrawals.c.state.in_(states))
    return [_withdrawal(row) for row in connection.execute(found.order_by(withdrawals.c.id))]


def is_superseded(connection: Connection, withdrawal: Withdrawal) -> bool:
    """True if a refresh of the same consent has obtained a replacement."""
    columns = withdrawals.c
    won = select(columns.id).where(
        columns.account_id == withdrawal.account,
        columns.origin == Origin.REFRESH,
        columns.consented == withdrawal.consented,
    )
    return connection.execute(won.limit(1)).first() is not None


def has_lost_answer(connection: Connection, withdrawal: Withdrawal) -> bool:
    """True if a refresh presented it and the answer was lost: an unknown newer pair may be valid at the provider."""
    if withdrawal.origin is not Origin.GRANT or is_superseded(connection, withdrawal):
        return False
    presented = _presented_in_vain(withdrawal.account, withdrawal.generation)
    lost = presented.where(refresh_intents.c.answer_sealed.is_(None))
    return connection.execute(lost.limit(1)).first() is not None


def was_presented_in_vain(connection: Connection, account: str, generation: int) -> bool:
    """True if a refresh presented this generation, and it is still the account's: it may have been ended by that."""
    return connection.execute(_presented_in_vain(account, generation).limit(1)).first() is not None


def _presented_in_vain(account: str, generation: int) -> Select[tuple[str]]:
    columns = refresh_intents.c
    return select(columns.id).where(
        columns.account_id == account,
        columns.generation == generation,
        columns.state.in_([IntentState.UNKNOWN, IntentState.DISCARDED]),
        columns.presented > 0,
    )


def is_refreshing(connection: Connection, account: str) -> bool:
    """True while a refresh of the account is unsettled: it may still obtain a token."""
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
