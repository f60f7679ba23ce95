"""Retention: what the ledger forgets after so many days, in chunks, so that nobody waits for it.

Never revocations, once keys with their owners' steps, nor anything that is not settled.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection, delete, exists, func, select, tuple_, update

from identity.audit.pruning import prune_audit
from identity.capability.issued import prune_capabilities
from identity.columns import database_now
from identity.mints import prune_mints
from identity.retention import prune_api_keys, prune_intents, prune_sessions
from identity.signing import Signer
from identity.store import Store
from pipeline.model import BEAT
from pipeline.revocation import Stage
from pipeline.revocation.tables import compensations, revocations
from pipeline.rhythms import RHYTHMS
from pipeline.states import AttemptState, StepState
from pipeline.tables import attempts, deliveries, heartbeats, idempotency_keys, jobs, schedules, slots, steps

CHUNK = 100  # rows, or jobs with all their steps, in one transaction
_HEARTBEATS = 1  # day, of hosts that are gone
Progress = Callable[[str, int], object]  # hears of what, and how much of it, each chunk forgot


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


def prune(
    store: Store,
    retention: Retention,
    signer: Signer,
    *,
    now: datetime,
    within: timedelta,
    chunk: int = CHUNK,
    progress: Progress = lambda what, number: None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Mapping[str, int]:
    """Forget what is old enough, chunk by chunk, and begin no chunk after *within*; how much of what. O(forgotten).

    *signer* states how far the audit was pruned. Raises Misconfigured if its chain does not hold, after all else.
    """
    end = monotonic() + within.total_seconds()
    forgotten = Counter[str]()
    for what, days, forget in (
        ("bodies", retention.bodies, prune_bodies),
        ("steps", retention.steps, prune_steps),
        ("capabilities", retention.steps, prune_capabilities),
        ("intents", retention.intents, prune_intents),
        ("mints", retention.intents, prune_mints),
        ("sessions", retention.sessions, prune_sessions),
        ("idempotency keys", retention.idempotency_keys, prune_idempotency_keys),
        ("api keys", retention.api_keys, prune_api_keys),
        ("slots", retention.slots, prune_slots),
        ("heartbeats", _HEARTBEATS, prune_heartbeats),
        ("audit", retention.audit, partial(prune_audit, signer=signer, now=now)),
    ):
        forgotten[what] = 0
        while days and monotonic() < end:
            number = store.write(partial(forget, before=now - timedelta(days=days), limit=chunk))
            forgotten[what] += number
            if number == 0:
                break
            progress(what, number)
    return forgotten


def prune_bodies(connection: Connection, *, before: datetime, limit: int) -> int:
    """Empty the bodies of deliveries that came before then. Their rows stay: a repetition is still recognised."""
    columns = deliveries.c
    old = (
        select(columns.id)
        .where(columns.received_at < before, func.length(columns.body) > 0)
        .order_by(columns.received_at)
        .limit(limit)
    )
    return connection.execute(update(deliveries).where(columns.id.in_(old)).values(body=b"")).rowcount


def prune_steps(connection: Connection, *, before: datetime, limit: int) -> int:
    """Forget the steps and the event of jobs that ended before then; how many jobs. They cannot be replayed any more.

    A step that may own a once key stays: another job may yet adopt its result. So does one that was compensated, a job
    with an outcome that is not known, and one whose revocation still counts.
    """
    unsettled = exists().where(
        attempts.c.step_id == steps.c.id, attempts.c.state.in_([AttemptState.OPEN, AttemptState.UNKNOWN])
    )
    unknown = exists().where(steps.c.job_id == jobs.c.id, (steps.c.state == StepState.UNKNOWN) | unsettled)
    counting = exists().where(
        revocations.c.id == jobs.c.revocation_id,
        (revocations.c.state != Stage.QUIESCED) | (revocations.c.open_ends > 0),
    )
    found = (
        select(jobs.c.id)
        .where(jobs.c.finished_at < before, jobs.c.pruned_at.is_(None), ~unknown, ~counting)
        .order_by(jobs.c.finished_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
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
