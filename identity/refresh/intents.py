"""Refresh intents: the rows that limit a refresh token to one presentation, with or without a lock.

The key is (account, generation). A row is written before the socket is used and carries a deadline for its outcome;
past it, an open intent is unknown. Each write is a compare-and-set on the state it leaves: of two writers one loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection, Row, and_, bindparam, or_, select, update

from identity.oauth.answers import WANT_PERSON
from identity.refresh.out_of_date import OutOfDate
from identity.refresh.tables import refresh_intents
from identity.sql.columns import is_among
from identity.sql.prepared import Prepared
from identity.sql.rows import Part, insert_new
from identity.sql.sequence import next_number
from identity.sql.state_machine import Moves

TOKEN_ANSWER = "token_answer"  # noqa: S105 - a name, not a secret


class IntentState(StrEnum):
    OPEN = "open"  # committed before sending
    ANSWERED = "answered"  # the raw answer is stored, and not yet read
    COMMITTED = "committed"  # its tokens are the account's
    DEAD = "dead"  # the provider no longer accepts the credential
    UNKNOWN = "unknown"  # it may have been presented, and the answer is lost
    DISCARDED = "discarded"  # a revocation, a consent or a signal came meanwhile
    FAILED = "failed"  # certainly without effect: it may be presented again


MOVES: Moves[IntentState] = Moves(
    "refresh intent",
    {
        IntentState.OPEN: frozenset(
            {
                IntentState.ANSWERED,
                IntentState.UNKNOWN,
                IntentState.FAILED,
                IntentState.DISCARDED,
            }
        ),
        IntentState.ANSWERED: frozenset(
            {
                IntentState.COMMITTED,
                IntentState.DEAD,
                IntentState.UNKNOWN,
                IntentState.FAILED,
                IntentState.DISCARDED,
            }
        ),
        # OPEN: presented again inside a verified grace window. UNKNOWN: that window has passed and it is given up.
        # The rest: the late answer of a stalled process is authoritative.
        IntentState.UNKNOWN: frozenset(
            {
                IntentState.OPEN,
                IntentState.UNKNOWN,
                IntentState.ANSWERED,
                IntentState.FAILED,
                IntentState.DISCARDED,
            }
        ),
        IntentState.FAILED: frozenset({IntentState.OPEN}),
        IntentState.COMMITTED: frozenset(),
        IntentState.DEAD: frozenset(),
        IntentState.DISCARDED: frozenset(),
    },
)
#: The outcome is not known yet, or its answer not read yet.
UNSETTLED = (IntentState.OPEN, IntentState.ANSWERED)
IS_UNSETTLED = is_among(refresh_intents.c.state, *UNSETTLED)  # the condition of the partial index
_BY_ID = Prepared(select(refresh_intents).where(refresh_intents.c.id == bindparam("intent")))
IS_REVOKED = (refresh_intents.c.state == IntentState.DISCARDED) & (refresh_intents.c.out_of_date == OutOfDate.REVOKED)


@dataclass(frozen=True, kw_only=True)
class RefreshIntent:
    """One intent to present the credential of one generation."""

    id: str
    account: str
    generation: int
    consented: int
    state: IntentState = IntentState.OPEN
    opened: int = 0  # a ledger number, taken under the locks
    started_at: datetime
    send_before: datetime
    settled_by: datetime
    presented: int = 1  # counted before sending
    answer_sealed: bytes | None = field(default=None, repr=False)
    retry_at: datetime | None = None
    doubtful_since: datetime | None = None  # start of an earlier presentation whose outcome is lost
    refused_keys: tuple[str, ...] = ()  # secrets or keys refused since the last wait: another goes next
    refused_since: datetime | None = None  # with them: when all live ones had last been refused with this code
    finished_at: datetime | None = None
    outcome: str | None = None  # for people
    code: str | None = None  # the error code of a refusal
    overtaken: bool = False  # a signal since it began made the account's tokens out of date

    @property
    def unsettled(self) -> bool:
        """True while its outcome is not known, or its answer not read."""
        return self.state in UNSETTLED

    @property
    def wants_person(self) -> bool:
        """True if it failed because the provider wants the account's person, who is asked once the token expires."""
        return self.state is IntentState.FAILED and self.code in WANT_PERSON

    @property
    def in_doubt_since(self) -> datetime:
        """For an unknown intent: when its first presentation with a lost outcome began."""
        return self.doubtful_since or self.started_at

    def may_go_again(self, *, by: datetime, grace: timedelta) -> bool:
        """True if the same refresh token may be presented once more, inside the provider's verified grace window.

        The window begins with the first presentation in doubt. *by* is the latest moment at which the next one is sent.
        """
        return self.presented < 2 and by < self.in_doubt_since + grace


def get_intent(connection: Connection, intent: str) -> RefreshIntent | None:
    """Return the intent with that id; None if another has replaced it."""
    row = _BY_ID.run(connection, {"intent": intent}).one_or_none()
    return None if row is None else intent_of(row)


def open_intent(connection: Connection, new: RefreshIntent, *, former: RefreshIntent | None) -> RefreshIntent | None:
    """Insert *new*, or replace *former* if still in the state that was read; None if another caller was first."""
    if former is None:
        return new if insert_new(connection, refresh_intents, _row(new)) else None
    doubt = former.in_doubt_since if former.state is IntentState.UNKNOWN else None
    counted = replace(new, presented=former.presented + 1, doubtful_since=doubt, refused_keys=former.refused_keys)
    MOVES.check(former.state, IntentState.OPEN)
    taken = update(refresh_intents).where(refresh_intents.c.id == former.id, refresh_intents.c.state == former.state)
    cleared = ("answer_sealed", "outcome", "code", "out_of_date", "refused_since", "finished_at", "settled")
    values = _row(counted) | dict.fromkeys(cleared)
    return counted if connection.execute(taken.values(values)).rowcount == 1 else None


def store_answer(connection: Connection, intent: str, sealed: bytes) -> bool:
    """Store the raw answer; False if the intent no longer waits for one.

    If a revocation has ended the intent meanwhile, the answer is still kept, only to be revoked at the provider.
    """
    columns, states = refresh_intents.c, MOVES.sources(IntentState.ANSWERED)
    stored = update(refresh_intents).where(columns.id == intent, columns.state.in_(states))
    if connection.execute(stored.values(state=IntentState.ANSWERED, answer_sealed=sealed)).rowcount == 1:
        return True
    late = update(refresh_intents).where(columns.id == intent, IS_REVOKED, columns.answer_sealed.is_(None))
    connection.execute(late.values(answer_sealed=sealed))
    return False


def settle(
    connection: Connection,
    intent: RefreshIntent,
    *,
    to: IntentState,
    outcome: str,
    now: datetime,
    code: str | None = None,
    out_of_date: OutOfDate | None = None,
    retry_at: datetime | None = None,
    keep_answer: bool = False,
    unpresented: bool = False,
) -> bool:
    """Settle an intent; False if it has left the state that was read, as when an answer has come.

    *outcome* is for people, *code* is the error code of a refusal. *unpresented* decrements the presentation count:
    certainly nothing was sent.
    """
    columns = refresh_intents.c
    MOVES.check(intent.state, to)
    settled = update(refresh_intents).where(columns.id == intent.id, columns.state == intent.state)
    number = None if to is IntentState.UNKNOWN else next_number(connection)
    settled = settled.values(state=to, finished_at=now, retry_at=retry_at, settled=number)
    settled = settled.values(outcome=outcome[:64], code=code and code[:64], out_of_date=out_of_date)
    if not keep_answer:
        settled = settled.values(answer_sealed=None)
    if unpresented:
        settled = settled.values(presented=columns.presented - 1)
    return connection.execute(settled).rowcount == 1


def set_refused_keys(
    connection: Connection, intent: str, keys: tuple[str, ...], *, since: datetime | None = None
) -> None:
    """Set the secrets that count as refused at the next presentation; the caller has just settled the intent.

    *since* is when all live ones had last been refused, with the code of this refusal.
    """
    refused = update(refresh_intents).where(refresh_intents.c.id == intent)
    connection.execute(refused.values(refused_keys=list(keys) or None, refused_since=since))


def abandoned(
    connection: Connection, *, now: datetime, limit: int, after: RefreshIntent | None = None
) -> Sequence[RefreshIntent]:
    """Return unsettled intents past their deadline, oldest first, starting behind *after*."""
    columns = refresh_intents.c
    due = select(refresh_intents).where(IS_UNSETTLED, columns.settled_by <= now)
    if after is not None:
        later, beside = columns.settled_by > after.settled_by, columns.settled_by == after.settled_by
        due = due.where(or_(later, and_(beside, columns.id > after.id)))
    return [intent_of(row) for row in connection.execute(due.order_by(columns.settled_by, columns.id).limit(limit))]


def _row(intent: RefreshIntent) -> dict[str, object]:
    return {
        "id": intent.id,
        "account_id": intent.account,
        "generation": intent.generation,
        "consented": intent.consented,
        "state": intent.state,
        "opened": intent.opened,
        "started_at": intent.started_at,
        "send_before": intent.send_before,
        "settled_by": intent.settled_by,
        "presented": intent.presented,
        "retry_at": intent.retry_at,
        "doubtful_since": intent.doubtful_since,
        "refused_keys": list(intent.refused_keys) or None,
    }


def intent_of(row: Row[tuple[object, ...]] | Part) -> RefreshIntent:
    """Map a row of `refresh_intents` to an intent."""
    return RefreshIntent(
        id=row.id,
        account=row.account_id,
        generation=row.generation,
        consented=row.consented,
        state=IntentState(row.state),
        opened=row.opened,
        started_at=row.started_at,
        send_before=row.send_before,
        settled_by=row.settled_by,
        presented=row.presented,
        answer_sealed=row.answer_sealed,
        retry_at=row.retry_at,
        doubtful_since=row.doubtful_since,
        refused_keys=tuple(row.refused_keys or ()),
        refused_since=row.refused_since,
        finished_at=row.finished_at,
        outcome=row.outcome,
        code=row.code,
        overtaken=row.out_of_date == OutOfDate.OVERTAKEN,
    )
