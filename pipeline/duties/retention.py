"""Retention: the ledger's data that is deleted after a number of days.

Never deleted are revocations with the signals that asked for them, once keys with their owners' steps and jobs, and
anything that is not settled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection, Select, delete, exists, func, literal_column, select, tuple_, update

from identity.audit.pruning import prune_audit
from identity.capability.issued import prune_capabilities
from identity.keys.signing import Signer
from identity.minting.mints import prune_mints
from identity.retention import Bookmark, Looked, look, look_at_intents, prune_api_keys, prune_intents, prune_sessions
from identity.sql.columns import database_now
from identity.sql.store import Store
from pipeline.deliveries.duplicates import BODY_WINDOW
from pipeline.duties.forgetting import CHUNK, Course, Kind, LookedThrough, Progress, forget_in_turn
from pipeline.duties.forgotten_jobs import look_at_deliveries, look_at_whole_jobs, prune_deliveries, prune_jobs
from pipeline.intervals import RHYTHMS
from pipeline.model import BEAT
from pipeline.revocation.declaration import Stage
from pipeline.revocation.tables import compensations, revocations
from pipeline.states import AttemptState, StepState
from pipeline.tables import (
    attempts,
    deliveries,
    delivery_bodies,
    heartbeats,
    idempotency_keys,
    jobs,
    schedules,
    slots,
    steps,
)

_HEARTBEATS = 1  # day; for hosts that are gone
_HASHES = BODY_WINDOW + timedelta(days=1)  # acceptance uses its host's clock, which may differ from the ledger's


@dataclass(frozen=True, kw_only=True)
class Retention:
    """The number of days that each kind is kept; 0: for good."""

    bodies: int = 30  # of deliveries
    steps: int = 90  # of jobs that have ended, with their attempts and the job's event; also expired capabilities
    intents: int = 30  # of refreshes that have ended
    sessions: int = 7  # of connect links, after they expired
    idempotency_keys: int = 30  # of agents' requests
    api_keys: int = 90  # after they expired or were revoked
    slots: int = 90  # of schedules, after they were fired
    jobs: int = 0  # after they ended, once their steps are forgotten
    deliveries: int = 0  # after they arrived; a repetition is recognised for that long
    audit: int = 0  # sealed rows, from the beginning of the chain


def prune(
    store: Store,
    retention: Retention,
    signer: Signer,
    *,
    now: datetime,
    within: timedelta,
    course: Course | None = None,
    chunk: int = CHUNK,
    progress: Progress = lambda what, number: None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Mapping[str, int]:
    """Delete what is old enough, chunk by chunk, and begin no chunk after *within*. Return the numbers by kind.

    *course* is the progress to continue; None: search everything. *signer* signs how far the audit was pruned. Failures
    are raised at the end, such as Misconfigured if the audit's chain does not hold.
    """
    kinds = (
        Kind(what="bodies", days=retention.bodies, how=prune_bodies),
        Kind(what="hashes of bodies", days=_HASHES.days, how=prune_hashes),
        Kind(what="steps", days=retention.steps, how=LookedThrough(look=look_at_jobs, forget=prune_steps)),
        Kind(what="capabilities", days=retention.steps, how=prune_capabilities),
        Kind(what="intents", days=retention.intents, how=LookedThrough(look=look_at_intents, forget=prune_intents)),
        Kind(what="mints", days=retention.intents, how=prune_mints),
        Kind(what="sessions", days=retention.sessions, how=prune_sessions),
        Kind(what="idempotency keys", days=retention.idempotency_keys, how=prune_idempotency_keys),
        Kind(what="api keys", days=retention.api_keys, how=prune_api_keys),
        Kind(what="slots", days=retention.slots, how=prune_slots),
        Kind(what="jobs", days=retention.jobs, how=LookedThrough(look=look_at_whole_jobs, forget=prune_jobs)),
        Kind(
            what="deliveries",
            days=retention.deliveries,
            how=LookedThrough(look=look_at_deliveries, forget=prune_deliveries),
        ),
        Kind(what="heartbeats", days=_HEARTBEATS, how=prune_heartbeats),
        Kind(what="audit", days=retention.audit, how=partial(prune_audit, signer=signer, now=now)),
    )
    return forget_in_turn(
        store,
        kinds,
        now=now,
        within=within,
        course=course,
        chunk=chunk,
        progress=progress,
        monotonic=monotonic,
    )


def prune_bodies(connection: Connection, *, before: datetime, limit: int) -> int:
    """Empty the bodies of deliveries received before a time. The rows stay, so a repetition is still recognised."""
    columns = deliveries.c
    is_there = func.length(columns.body) > literal_column("0")  # worded as in its index: a bound value would hide it
    old = select(columns.id).where(columns.received_at < before, is_there).order_by(columns.received_at).limit(limit)
    return connection.execute(update(deliveries).where(columns.id.in_(old)).values(body=b"")).rowcount


def prune_hashes(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete hashes of bodies seen before a time, when the same body counts as new anyway; return how many."""
    columns = delivery_bodies.c
    key = tuple_(columns.connection_id, columns.body_sha256)
    old = columns.seen_at < before  # repeated for the row itself, which may be taken over while its lock is waited for
    found = select(columns.connection_id, columns.body_sha256).where(old).order_by(columns.seen_at).limit(limit)
    return connection.execute(delete(delivery_bodies).where(key.in_(found), old)).rowcount


def look_at_jobs(connection: Connection, *, before: datetime, after: Bookmark | None, limit: int) -> Looked:
    """Look at the next jobs that ended before a time, and return those whose steps may go."""
    old = (jobs.c.finished_at < before, jobs.c.pruned_at.is_(None))
    return look(connection, jobs, *old, may_go=_forgettable_jobs(before), after=after, limit=limit)


def prune_steps(connection: Connection, *, before: datetime, ids: Sequence[str]) -> int:
    """Forget the steps and events of those of these jobs that may still go; return how many. They cannot be replayed.

    A step that may own a once key stays, as another job may yet adopt its result. So does a compensated one.
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
    """Select the jobs that ended before a time, except with an unknown outcome or a revocation that still counts."""
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
    """Forget idempotency keys of requests from before a time, unless their job has not ended; return how many.

    A request with a forgotten key is a new one.
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
    """Forget slots fired before a time; return how many.

    A slot that its schedule has yet to pass stays: after a clock went back, or a schedule was removed and added again,
    the schedule reaches it once more.
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
    """Forget heartbeats from before a time; return how many. The newest of each existing duty stays on record."""
    columns = heartbeats.c
    newest = select(columns.duty, func.max(columns.at)).where(columns.duty.in_([*RHYTHMS, BEAT])).group_by(columns.duty)
    old = (
        select(columns.duty, columns.host)
        .where(columns.at < before, tuple_(columns.duty, columns.at).not_in(newest))
        .order_by(columns.at)
        .limit(limit)
    )
    return connection.execute(delete(heartbeats).where(tuple_(columns.duty, columns.host).in_(old))).rowcount
