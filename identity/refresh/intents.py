"""Refresh intents: the row that makes a refresh token presented once, whoever else holds a lock.

The key is (account, generation). A row is written before the socket is used and says by when its outcome must be known;
after that an open one is unknown. Each write names the state it may leave, so of two writers one finds that it is late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection, Row, Select, and_, bindparam, func, literal, or_, select, update

from identity.oauth.answers import WANT_PERSON
from identity.providers.profile import Profile
from identity.refresh.tables import refresh_intents
from identity.sql.columns import is_among
from identity.sql.prepared import Prepared
from identity.sql.rows import Part, insert_new
from identity.sql.sequence import next_number
from identity.sql.state_machine import Moves
from identity.tables import grants

TOKEN_ANSWER = "token_answer"  # noqa: S105 - a name, no secret


class IntentState(StrEnum):
    OPEN = "open"  # committed before sending
    ANSWERED = "answered"  # the raw answer is stored, and not yet read
    COMMITTED = "committed"  # its tokens are the account's
    DEAD = "dead"  # the provider does not take the credential any more
    UNKNOWN = "unknown"  # it may have been presented, and the answer is lost
    DISCARDED = "discarded"  # a revocation, a consent or a signal came meanwhile
    FAILED = "failed"  # certainly without effect: it may be presented again


class OutOfDate(StrEnum):
    """What put an intent's answer out of date."""

    OVERTAKEN = "overtaken"  # a signal, and only as long as there is no other outcome: it says what held before
    REVOKED = "revoked"  # a revocation: it is discarded, and a late answer is kept to be revoked at the provider
    MOVED = "moved"  # its grant has another generation: it is discarded
    DELETED = "deleted"  # its tenant was: nobody waits for its answer, or keeps it, any more


#: The outcomes of such, for people.
OUTDATED: Mapping[OutOfDate, str] = {
    OutOfDate.OVERTAKEN: "overtaken by a signal",
    OutOfDate.REVOKED: "revoked",
    OutOfDate.MOVED: "generation moved",
    OutOfDate.DELETED: "tenant deleted",
}


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
        # OPEN: once more, inside a verified grace window. UNKNOWN: that window has passed, so it is given up.
        # The others: a paused process's late answer is the truth.
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
#: The outcome is still to be known, or read.
UNSETTLED = (IntentState.OPEN, IntentState.ANSWERED)
IS_UNSETTLED = is_among(refresh_intents.c.state, *UNSETTLED)  # the condition of the partial index
_BY_ID = Prepared(select(refresh_intents).where(refresh_intents.c.id == bindparam("intent")))
_REVOKED = (refresh_intents.c.state == IntentState.DISCARDED) & (refresh_intents.c.out_of_date == OutOfDate.REVOKED)


@dataclass(frozen=True, kw_only=True)
class RefreshIntent:
    """One intent to present the credential of one generation."""

    id: str
    account: str
    generation: int
    consented: int
    state: IntentState = IntentState.OPEN
    opened: int = 0  # the number is taken under the locks
    started_at: datetime
    send_before: datetime
    settled_by: datetime
    presented: int = 1  # counted before sending
    answer_sealed: bytes | None = field(default=None, repr=False)
    retry_at: datetime | None = None
    doubtful_since: datetime | None = None  # an earlier presentation began then, and its outcome is lost
    refused_keys: tuple[str, ...] = ()  # whose assertions were refused since the last wait: another one signs next
    finished_at: datetime | None = None
    outcome: str | None = None  # what came of it, as far as it is known, for people
    code: str | None = None  # what it was refused with
    overtaken: bool = False  # since it began, a signal said that its account's tokens say what does not hold any more

    @property
    def unsettled(self) -> bool:
        """Whether its outcome is still to be known, or read."""
        return self.state in UNSETTLED

    @property
    def wants_person(self) -> bool:
        """Whether it failed since the provider wants the account's person, who is asked once its token has ended."""
        return self.state is IntentState.FAILED and self.code in WANT_PERSON

    @property
    def in_doubt_since(self) -> datetime:
        """When the first presentation began whose outcome is lost, of an intent that is unknown."""
        return self.doubtful_since or self.started_at


def get_intent(connection: Connection, intent: str) -> RefreshIntent | None:
    """The intent of that id; None if another has taken its place."""
    row = _BY_ID.run(connection, {"intent": intent}).one_or_none()
    return None if row is None else intent_of(row)


def open_intent(connection: Connection, new: RefreshIntent, *, former: RefreshIntent | None) -> RefreshIntent | None:
    """Write *new*, or put it in the place of *former* in the state that was read; None if someone was first."""
    if former is None:
        return new if insert_new(connection, refresh_intents, _row(new)) else None
    doubt = former.in_doubt_since if former.state is IntentState.UNKNOWN else None
    counted = replace(new, presented=former.presented + 1, doubtful_since=doubt, refused_keys=former.refused_keys)
    MOVES.check(former.state, IntentState.OPEN)
    taken = update(refresh_intents).where(refresh_intents.c.id == former.id, refresh_intents.c.state == former.state)
    cleared = ("answer_sealed", "outcome", "code", "out_of_date", "finished_at", "settled")
    values = _row(counted) | dict.fromkeys(cleared)
    return counted if connection.execute(taken.values(values)).rowcount == 1 else None


def store_answer(connection: Connection, intent: str, sealed: bytes) -> bool:
    """Keep the raw answer; False if the intent is no longer one that waits for it.

    Of one that a revocation has ended meanwhile it is kept all the same, only to be revoked at the provider.
    """
    columns, states = refresh_intents.c, MOVES.sources(IntentState.ANSWERED)
    stored = update(refresh_intents).where(columns.id == intent, columns.state.in_(states))
    if connection.execute(stored.values(state=IntentState.ANSWERED, answer_sealed=sealed)).rowcount == 1:
        return True
    late = update(refresh_intents).where(columns.id == intent, _REVOKED, columns.answer_sealed.is_(None))
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
    """Move an intent to its end; False if it has left the state that was read: an answer may have come.

    *outcome* is for people, *code* what it was refused with. *unpresented* takes back the count: certainly nothing
    was sent.
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


def set_refused_keys(connection: Connection, intent: str, keys: tuple[str, ...]) -> None:
    """Whose assertions count as refused at the intent's next presentation; the caller has just settled it."""
    refused = update(refresh_intents).where(refresh_intents.c.id == intent)
    connection.execute(refused.values(refused_keys=list(keys) or None))


def overtake(connection: Connection, account: str) -> bool:
    """Mark what is on the wire for the account's present generation: its answer will say what held before.

    False if there is nothing. A presentation that begins afterwards is not marked. The caller holds the account's lock
    exclusively.
    """
    columns = refresh_intents.c
    present = select(grants.c.generation).where(grants.c.account_id == account).scalar_subquery()
    states = [IntentState.ANSWERED, *MOVES.sources(IntentState.ANSWERED)]
    marked = update(refresh_intents).where(
        columns.account_id == account, columns.generation == present, columns.state.in_(states)
    )
    return connection.execute(marked.values(_outdated(OutOfDate.OVERTAKEN))).rowcount > 0


def discard_for_good(connection: Connection, of: Select[str], *, now: datetime) -> None:
    """The accounts *of* a deleted tenant: no answer is kept, and none that comes later is stored.

    The caller holds the tenant's lock exclusively.
    """
    columns = refresh_intents.c
    may_store = or_(columns.state.in_(MOVES.sources(IntentState.DISCARDED)), _REVOKED)
    ended = update(refresh_intents).where(columns.account_id.in_(of), may_store)
    finished_at = func.coalesce(columns.finished_at, literal(now, columns.finished_at.type))
    settled = func.coalesce(columns.settled, next_number(connection))
    ended = ended.values(state=IntentState.DISCARDED, finished_at=finished_at, settled=settled, answer_sealed=None)
    connection.execute(ended.values(_outdated(OutOfDate.DELETED)))


def abandoned(
    connection: Connection, *, now: datetime, limit: int, after: RefreshIntent | None = None
) -> Sequence[RefreshIntent]:
    """Intents whose outcome should be known by now and is not, the oldest first; those that follow *after*."""
    columns = refresh_intents.c
    due = select(refresh_intents).where(IS_UNSETTLED, columns.settled_by <= now)
    if after is not None:
        later, beside = columns.settled_by > after.settled_by, columns.settled_by == after.settled_by
        due = due.where(or_(later, and_(beside, columns.id > after.id)))
    return [intent_of(row) for row in connection.execute(due.order_by(columns.settled_by, columns.id).limit(limit))]


def kept_answers(connection: Connection, account: str) -> Sequence[RefreshIntent]:
    """Answers that came after a revocation: kept sealed only to revoke them at the provider."""
    columns = refresh_intents.c
    kept = select(refresh_intents).where(
        columns.account_id == account, columns.state == IntentState.DISCARDED, columns.answer_sealed.is_not(None)
    )
    return [intent_of(row) for row in connection.execute(kept)]


def _outdated(by: OutOfDate) -> dict[str, str]:
    return {"out_of_date": by, "outcome": OUTDATED[by]}


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


def may_present_again(intent: RefreshIntent, profile: Profile, *, by: datetime) -> bool:
    """Inside a verified grace window the same refresh token may be presented once more.

    The window begins with the first presentation that is in doubt. *by* is when the next one leaves at the latest.
    """
    return intent.presented < 2 and by < intent.in_doubt_since + timedelta(seconds=profile.grace_seconds)


def intent_of(row: Row[tuple[object, ...]] | Part) -> RefreshIntent:
    """What a row of `refresh_intents` says."""
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
        finished_at=row.finished_at,
        outcome=row.outcome,
        code=row.code,
        overtaken=row.out_of_date == OutOfDate.OVERTAKEN,
    )
