"""Calls of a step: which had their effect, which may have had it, and giving way to those.

An attempt that searches for an effect is not a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Exists, bindparam, exists, select

from identity.sql.prepared import Prepared
from pipeline.jobs.claims import bury, requeue
from pipeline.jobs.intents import Ended, Intent
from pipeline.states import AttemptState, Purpose, StepState
from pipeline.tables import attempts, steps

# Built once: most closings ask the first.
_IN_DOUBT = Prepared(
    select(attempts.c.id).where(
        attempts.c.step_id == bindparam("step"),
        attempts.c.id != bindparam("but"),
        attempts.c.purpose == Purpose.CALL,
        attempts.c.state == AttemptState.UNKNOWN,
    )
)
_IN_DOUBT_BEFORE = Prepared(_IN_DOUBT.statement.where(attempts.c.opened < bindparam("before")))


def calls_in_doubt(connection: Connection, step: str, *, but: str, before: int | None = None) -> Sequence[str]:
    """Return calls of a step with an unknown outcome, except the attempt *but*: all, or those opened *before*."""
    which = {"step": step, "but": but}
    if before is None:
        return _IN_DOUBT.run(connection, which).scalars()
    return _IN_DOUBT_BEFORE.run(connection, {**which, "before": before}).scalars()


def may_have_acted(connection: Connection, step: str, *, since: int | None = None) -> bool:
    """True if a call of a step had an effect, or may have had one: any call, or one opened after *since*."""
    call = exists().where(
        attempts.c.step_id == step, attempts.c.purpose == Purpose.CALL, attempts.c.state != AttemptState.NO_EFFECT
    )
    if since is not None:
        call = call.where(attempts.c.opened > since)
    return bool(connection.execute(select(call)).scalar_one())


def overtaken(connection: Connection, step: str, *, by_unknown: bool, unknown_before: datetime | None = None) -> bool:
    """True if an earlier attempt gave the step its effect, or may still do so.

    *by_unknown*: attempts of unknown outcome count as well; *unknown_before*: those opened before that time do.
    """
    settled = [AttemptState.NO_EFFECT, *([] if by_unknown else [AttemptState.UNKNOWN])]
    counts: ColumnElement[bool] = attempts.c.state.not_in(settled)
    if unknown_before is not None:
        counts |= (attempts.c.state == AttemptState.UNKNOWN) & (attempts.c.opened_at <= unknown_before)
    other = exists().where(attempts.c.step_id == step, attempts.c.purpose == Purpose.CALL, counts)
    # If a search found the effect of a call that had been ruled out, only the step says so.
    found = _is_done(step)
    return bool(connection.execute(select(other | found)).scalar_one())


def give_way(connection: Connection, intent: Intent) -> Ended:
    """End the run in favour of an earlier attempt; the job looks again at once, or after its deadline."""
    if is_done(connection, intent.step):
        delay, reason = timedelta(), "an earlier attempt was answered late"
    elif _had_effect(connection, intent.step):  # before late answers were kept, an attempt could leave no result behind
        reason = "an earlier attempt had its effect, and its result was not kept"
        return Ended(reason=reason, moved=bury(connection, intent.job, reason=reason))
    else:
        delay, reason = intent.send_within + intent.deadline, "an earlier attempt may yet be answered"
    return Ended(reason=reason, moved=requeue(connection, intent.job, delay=delay, reason=reason))


def is_done(connection: Connection, step: str) -> bool:
    """True if a step has its result."""
    return bool(connection.execute(select(_is_done(step))).scalar_one())


def word_wanted(provider: str) -> str:
    """Return the request to a person when nothing else can tell a call's outcome; `aswhom jobs show` explains how."""
    return f"look at {provider}, then say what became of it"


def _is_done(step: str) -> Exists:
    return exists().where(steps.c.id == step, steps.c.state == StepState.DONE)


def _had_effect(connection: Connection, step: str) -> bool:
    known = [AttemptState.EFFECT, AttemptState.ADOPTED]
    effect = exists().where(attempts.c.step_id == step, attempts.c.purpose == Purpose.CALL, attempts.c.state.in_(known))
    return bool(connection.execute(select(effect)).scalar_one())
