"""Retention: what the ledger forgets after so many days, in chunks, so that nobody waits for it.

Where some of a kind must stay however old it is, it is looked through in reads: a write waits for no such look.

Never revocations, once keys with their owners' steps, nor anything that is not settled.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from sqlalchemy import Connection, Select, delete, exists, func, literal_column, select, tuple_, update

from identity.audit.pruning import prune_audit
from identity.capability.issued import prune_capabilities
from identity.columns import database_now
from identity.mints import prune_mints
from identity.retention import Bookmark, Looked, look, look_at_intents, prune_api_keys, prune_intents, prune_sessions
from identity.signing import Signer
from identity.store import Store
from pipeline.batches import in_batches
from pipeline.model import BEAT
from pipeline.revocation import Stage
from pipeline.revocation.tables import compensations, revocations
from pipeline.rhythms import RHYTHMS
from pipeline.states import AttemptState, StepState
from pipeline.tables import attempts, deliveries, heartbeats, idempotency_keys, jobs, schedules, slots, steps

log = logging.getLogger(__name__)

CHUNK = 100  # rows, or jobs with all their steps, in one transaction
_LOOKED_AT = 10  # chunks, in one read
_IN_VAIN = 100  # chunks that have to stay, in one tick
_HEARTBEATS = 1  # day, of hosts that are gone
Progress = Callable[[str, int], object]  # hears of what, and how much of it, each chunk forgot
Bookmarks = dict[str, Bookmark]  # by what is looked through


@dataclass(frozen=True, kw_only=True)
class Retention:
    """For how many days each is kept; 0: for good."""

    bodies: int = 30  # of deliveries
    steps: int = 90  # of jobs that have ended, with their attempts and the job's event; and capabilities that expired
    intents: int = 30  # of refreshes that have ended
    sessions: int = 7  # of connect links, after they expired
    idempotency_keys: int = 30  # of agents' requests
    api_keys: int = 90  # after they expired or were revoked
    slots: int = 90  # of schedules, after they were fired
    audit: int = 0  # sealed rows, from the beginning of the chain


class _ForgetFirst(Protocol):
    """Forgets the first of what is from before then; how many."""

    def __call__(self, connection: Connection, /, *, before: datetime, limit: int) -> int: ...


class _Look(Protocol):
    """Looks at the next of what is from before then, and says which may go."""

    def __call__(
        self, connection: Connection, /, *, before: datetime, after: Bookmark | None, limit: int
    ) -> Looked: ...


class _ForgetThese(Protocol):
    """Forgets those of these that may go still; how many."""

    def __call__(self, connection: Connection, /, *, before: datetime, ids: Sequence[str]) -> int: ...


@dataclass(frozen=True, kw_only=True)
class _LookedThrough:
    """How a kind is forgotten of which some must stay."""

    look: _Look
    forget: _ForgetThese


def prune(
    store: Store,
    retention: Retention,
    signer: Signer,
    *,
    now: datetime,
    within: timedelta,
    bookmarks: Bookmarks | None = None,
    chunk: int = CHUNK,
    progress: Progress = lambda what, number: None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Mapping[str, int]:
    """Forget what is old enough, chunk by chunk, and begin no chunk after *within*; how much of what.

    *bookmarks* are those to go on from, and are changed: among what must stay a tick goes only so far, and the next one
    behind it. None: all is looked through. *signer* states how far the audit was pruned.

    What fails keeps nothing else from being forgotten. The first of it is raised in the end: Misconfigured, say, if the
    audit's chain does not hold.
    """
    end = monotonic() + within.total_seconds()
    forgotten = Counter[str]()
    failed: Exception | None = None
    kinds: tuple[tuple[str, int, _ForgetFirst | _LookedThrough], ...] = (
        ("bodies", retention.bodies, prune_bodies),
        ("steps", retention.steps, _LookedThrough(look=look_at_jobs, forget=prune_steps)),
        ("capabilities", retention.steps, prune_capabilities),
        ("intents", retention.intents, _LookedThrough(look=look_at_intents, forget=prune_intents)),
        ("mints", retention.intents, prune_mints),
        ("sessions", retention.sessions, prune_sessions),
        ("idempotency keys", retention.idempotency_keys, prune_idempotency_keys),
        ("api keys", retention.api_keys, prune_api_keys),
        ("slots", retention.slots, prune_slots),
        ("heartbeats", _HEARTBEATS, prune_heartbeats),
        ("audit", retention.audit, partial(prune_audit, signer=signer, now=now)),
    )
    for what, days, how in kinds:
        forgotten[what] = 0
        before = now - timedelta(days=days)
        if isinstance(how, _LookedThrough):
            chunks = _chunks_of_some(store, what, how, before=before, chunk=chunk, bookmarks=bookmarks)
        else:
            chunks = _chunks_of_all(store, how, before=before, chunk=chunk)
        try:
            while days and monotonic() < end and (number := next(chunks, None)) is not None:
                forgotten[what] += number
                if number:
                    progress(what, number)
        except Exception as error:  # raised when the others have had their turn
            if failed is not None:
                extra = {"action": "retention.failed", "what": what}
                log.warning("%s could not be forgotten", what, exc_info=error, extra=extra)
            failed = failed or error
    if failed is not None:
        raise failed
    return forgotten


def _chunks_of_all(store: Store, forget: _ForgetFirst, *, before: datetime, chunk: int) -> Iterator[int]:
    """How much each chunk forgot, of a kind of which all goes that is old."""
    while number := store.write(partial(forget, before=before, limit=chunk)):
        yield number


def _chunks_of_some(
    store: Store, what: str, how: _LookedThrough, *, before: datetime, chunk: int, bookmarks: Bookmarks | None
) -> Iterator[int]:
    """How much each chunk forgot, of a kind of which some must stay."""
    kept = {} if bookmarks is None else bookmarks
    stayed = 0
    while bookmarks is None or stayed < _IN_VAIN * chunk:
        looked = store.read(partial(how.look, before=before, after=kept.get(what), limit=_LOOKED_AT * chunk))
        for some in in_batches(looked.forgettable, chunk):
            yield store.write(partial(how.forget, before=before, ids=some))
        if looked.bookmark is None:
            kept.pop(what, None)
            return
        kept[what] = looked.bookmark
        stayed += looked.number - len(looked.forgettable)
        yield 0


def prune_bodies(connection: Connection, *, before: datetime, limit: int) -> int:
    """Empty the bodies of deliveries that came before then. Their rows stay: a repetition is still recognised."""
    columns = deliveries.c
    is_there = func.length(columns.body) > literal_column("0")  # in the words of its index: a bound value would hide it
    old = select(columns.id).where(columns.received_at < before, is_there).order_by(columns.received_at).limit(limit)
    return connection.execute(update(deliveries).where(columns.id.in_(old)).values(body=b"")).rowcount


def look_at_jobs(connection: Connection, *, before: datetime, after: Bookmark | None, limit: int) -> Looked:
    """Of which of the next jobs that ended before then the steps may go."""
    old = (jobs.c.finished_at < before, jobs.c.pruned_at.is_(None))
    return look(connection, jobs, *old, may_go=_forgettable_jobs(before), after=after, limit=limit)


def prune_steps(connection: Connection, *, before: datetime, ids: Sequence[str]) -> int:
    """Forget the steps and the event of those of these jobs that may go still; how many. They cannot be replayed.

    A step that may own a once key stays: another job may yet adopt its result. So does one that was compensated.
    """
    found = _forgettable_jobs(before).where(jobs.c.id.in_(ids)).with_for_update(skip_locked=True)
    ended = connection.execute(found).scalars().all()
    if not ended:
        return 0
    forgettable = select(steps.c.id).where(
        steps.c.job_id.in_(ended),
        steps.c.once_key.is_(None) | steps.c.adopted_from.is_not(None),
        ~exists().where(compensations.c.step_id == steps.c.id),
    )
    gone = connection.execute(forgettable).scalars().all()
    if gone:
        connection.execute(delete(attempts).where(attempts.c.step_id.in_(gone)))
        connection.execute(delete(steps).where(steps.c.id.in_(gone)))
    connection.execute(update(jobs).where(jobs.c.id.in_(ended)).values(pruned_at=database_now(), event={}))
    return len(ended)


def _forgettable_jobs(before: datetime) -> Select[str]:
    """Those that ended before then, without one with an outcome that is not known, or whose revocation still counts."""
    unsettled = exists().where(
        attempts.c.step_id == steps.c.id, attempts.c.state.in_([AttemptState.OPEN, AttemptState.UNKNOWN])
    )
    unknown = exists().where(steps.c.job_id == jobs.c.id, (steps.c.state == StepState.UNKNOWN) | unsettled)
    counting = exists().where(
        revocations.c.id == jobs.c.revocation_id,
        (revocations.c.state != Stage.QUIESCED) | (revocations.c.open_ends > 0),
    )
    return select(jobs.c.id).where(jobs.c.finished_at < before, jobs.c.pruned_at.is_(None), ~unknown, ~counting)


def prune_idempotency_keys(connection: Connection, *, before: datetime, limit: int) -> int:
    """Forget the idempotency keys of requests that came before then, unless their job has not ended; how many.

    A request that comes again with a forgotten key is a new one.
    """
    columns = idempotency_keys.c
    key = tuple_(columns.tenant_id, columns.agent_id, columns.key)
    unfinished = exists().where(jobs.c.id == columns.made_id, jobs.c.finished_at.is_(None))
    old = (
        select(columns.tenant_id, columns.agent_id, columns.key)
        .where(columns.made_at < before, ~unfinished)
        .order_by(columns.made_at)
        .limit(limit)
    )
    return connection.execute(delete(idempotency_keys).where(key.in_(old))).rowcount


def prune_slots(connection: Connection, *, before: datetime, limit: int) -> int:
    """Forget slots that were fired before then; how many.

    One that its schedule has yet to pass stays: a clock that went back, or a schedule that was removed and added again,
    comes to it once more.
    """
    ahead = exists().where(schedules.c.id == slots.c.schedule_id, schedules.c.next_at <= slots.c.slot)
    old = (
        select(slots.c.schedule_id, slots.c.slot)
        .where(slots.c.fired_at < before, ~ahead)
        .order_by(slots.c.fired_at)
        .limit(limit)
    )
    return connection.execute(delete(slots).where(tuple_(slots.c.schedule_id, slots.c.slot).in_(old))).rowcount


def prune_heartbeats(connection: Connection, *, before: datetime, limit: int) -> int:
    """Forget heartbeats from before then; how many. The newest of a duty that there is stays, and says when it was."""
    columns = heartbeats.c
    newest = select(columns.duty, func.max(columns.at)).where(columns.duty.in_([*RHYTHMS, BEAT])).group_by(columns.duty)
    old = (
        select(columns.duty, columns.host)
        .where(columns.at < before, tuple_(columns.duty, columns.at).not_in(newest))
        .order_by(columns.at)
        .limit(limit)
    )
    return connection.execute(delete(heartbeats).where(tuple_(columns.duty, columns.host).in_(old))).rowcount
