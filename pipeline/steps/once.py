"""Once keys: do a thing once for a tenant, across jobs.

A key belongs to a step until every attempt of that step is known to have had no effect, regardless of its job's state.
After that a step with the same request may take the key at once, and one with a different request once the owning step
or its job has ended.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Row, exists, func, select, update

from identity.sql.rows import insert_or
from pipeline.jobs.calls import may_have_acted
from pipeline.jobs.claims import park
from pipeline.jobs.intents import Adopted, Ended, Intent, OnceMismatch
from pipeline.states import ENDED, AttemptState, StepState, Wait
from pipeline.steps.writing import record_intent, write_step
from pipeline.tables import attempts, jobs, once_keys, steps

ONCE_EXPIRES = timedelta(days=14)  # from when a job began to wait, however often it looks again

_CAME_TO_NOTHING = (StepState.FAILED, StepState.REFUSED, StepState.SKIPPED)


def once_name(tenant: str, action: str, key: str) -> str:
    """Return the `waits_for` of a job that waits for a once key's owner; a digest if it would be too long."""
    name = f"once:{tenant}:{action}:{key}"
    return name if len(name) <= 200 else f"once:{sha256(name.encode()).hexdigest()}"


def take_once(connection: Connection, intent: Intent, now: datetime) -> Adopted | Ended | OnceMismatch | None:
    """Own the once key (None), adopt its owner's result, or wait for the owner.

    OnceMismatch: its owner did, may have done or is about to do something else under the key.
    """
    tenant, action, key = intent.job.tenant, intent.action, intent.once
    assert key is not None  # noqa: S101 - the caller checked; for the type checker
    which = (once_keys.c.tenant_id == tenant) & (once_keys.c.action == action) & (once_keys.c.key == key)
    mine = {
        "request_hash": intent.request_hash,
        "step_id": intent.step,
        "job_id": intent.job.id,
        "taken_at": now,
    }
    new = insert_or(connection, once_keys).values(tenant_id=tenant, action=action, key=key, **mine)
    if connection.execute(new.on_conflict_do_nothing()).rowcount == 1:
        return None
    held = connection.execute(select(once_keys).where(which).with_for_update()).one_or_none()
    if held is None:  # a replay released it while this waited for it, so anybody may take it
        return take_once(connection, intent, now)
    if held.step_id == intent.step:
        return None
    owner = connection.execute(select(steps).where(steps.c.id == held.step_id)).one_or_none()
    done = owner is not None and owner.state == StepState.DONE
    if held.request_hash != intent.request_hash and not _is_over(connection, held.step_id):
        return OnceMismatch(owner=held.job_id, done=held.step_id if done else None)
    if owner is not None and done:
        return _adopt(connection, intent, owner, now)
    if not may_have_acted(connection, held.step_id):
        # Compare-and-set: one of two waiters takes it over.
        taking = update(once_keys).where(which, once_keys.c.step_id == held.step_id)
        if connection.execute(taking.values(**mine)).rowcount == 1:
            return None
    return _wait_for(connection, intent, held, now)


def _adopt(connection: Connection, intent: Intent, owner: Row[Any], now: datetime) -> Adopted:
    """Complete this step with the result of the owner's step, which is done."""
    write_step(
        connection,
        intent,
        StepState.DONE,
        now,
        result=owner.result,
        external_id=owner.external_id,
        adopted_from=owner.id,
        closed_at=now,
    )
    record_intent(
        connection,
        intent,
        "step.adopted",
        id=f"{intent.attempt}.adopted",
        at=now,
        outcome="done",
        reason=f"done once by job {owner.job_id}",
        detail={"adopted_from": owner.id},
    )
    return Adopted(owner=owner.job_id, result=owner.result)


def _wait_for(connection: Connection, intent: Intent, held: Row[Any], now: datetime) -> Ended:
    """Park until the owner of the key *held* wakes this job, or may have moved without waking it."""
    reason = f"job {held.job_id} is doing this ({held.key})"
    waits_for = once_name(held.tenant_id, held.action, held.key)
    waited = connection.execute(select(jobs.c.waits_for).where(jobs.c.id == intent.job.id)).scalar_one() == waits_for
    parked = park(
        connection,
        intent.job,
        Wait.ONCE,
        waits_for=waits_for,
        due_in=_look_again_in(connection, held.step_id, now),
        expires_in=ONCE_EXPIRES,
        reason=reason,
        step=intent.unopened,
    )
    if not waited:  # one record per wait, however often it looks again
        record_intent(
            connection, intent, "job.parked", id=f"{intent.attempt}.parked", at=now, outcome="waiting", reason=reason
        )
    return Ended(reason=reason, moved=parked)


def _look_again_in(connection: Connection, step: str, now: datetime) -> timedelta:
    """Return the time until the owner's step may have moved without waking its waiters."""
    latest = select(attempts.c.state, func.max(attempts.c.settled_by).label("settled_by"))
    latest = latest.where(attempts.c.step_id == step).group_by(attempts.c.state)
    settled_by: dict[str, datetime] = {row.state: row.settled_by for row in connection.execute(latest)}
    if AttemptState.OPEN in settled_by:  # answered by then, or given up
        return max(settled_by[AttemptState.OPEN] - now, timedelta(seconds=1))
    # Settling the owner's call wakes its waiters, so a minute is only a fallback for a move that we raced with. Nobody
    # wakes them for a result that was not kept.
    unmoved = {AttemptState.UNKNOWN, AttemptState.EFFECT, AttemptState.ADOPTED}
    return timedelta(minutes=1) if unmoved & settled_by.keys() else timedelta(seconds=1)


def _is_over(connection: Connection, step: str) -> bool:
    """True if the owner's step came to nothing and makes no further attempt unless a person replays its job."""
    ended = steps.c.state.in_(_CAME_TO_NOTHING) | jobs.c.state.in_(ENDED)
    over = exists().where(steps.c.id == step, jobs.c.id == steps.c.job_id, ended)
    return bool(connection.execute(select(over)).scalar_one()) and not may_have_acted(connection, step)
