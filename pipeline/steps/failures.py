"""Failures without a call: a step that has waited for its upstream in vain."""

from __future__ import annotations

from functools import partial

from sqlalchemy import Connection, select

from identity.accounts.scopes import revoked_since
from identity.sql.prepared import Prepared
from identity.sql.sequence import lock_shared, next_number
from pipeline.jobs.calls import overtaken
from pipeline.jobs.claims import lock_claim
from pipeline.jobs.intents import (
    Adopted,
    Ended,
    Intent,
    OnceMismatch,
    PolicyMoved,
    Skipped,
    claim_lost,
)
from pipeline.states import AttemptState, StepState
from pipeline.steps.before import PRESENT, done_before, go_on
from pipeline.steps.closings import resolve_unknown
from pipeline.steps.writing import record_intent, write_step

_PRESENT = Prepared(select(*PRESENT))


def fail(
    connection: Connection, intent: Intent, *, reason: str
) -> Adopted | Ended | OnceMismatch | PolicyMoved | Skipped | None:
    """Fail the step (None), unless an opening would have ended it without a call.

    Nothing is sent, so neither an approval nor a token is asked for.
    """
    job, scopes = intent.job, intent.lease.scope_list
    lock_shared(connection, scopes)
    if not lock_claim(connection, job):
        return claim_lost(connection, job)
    present = _PRESENT.run(connection, {"tenant": job.tenant, "through": intent.connection}).one()
    now = present.now
    ended = go_on(connection, intent, present, partial(revoked_since, connection, scopes, intent.lease.accepted))
    if ended is not None:
        return ended
    acted = overtaken(connection, intent.step, by_unknown=not intent.reads)
    settled = done_before(connection, intent, now, overtaken=acted)
    if settled is not None:
        return settled
    if intent.reads:  # a read leaves no call in doubt: nobody is to be asked about it
        resolve_unknown(connection, intent, AttemptState.NO_EFFECT, number=next_number(connection), now=now)
    write_step(connection, intent, StepState.FAILED, now, error=reason, closed_at=now, upstream_gone=True)
    record_intent(
        connection, intent, "step.failed", id=f"{intent.attempt}.failed", at=now, outcome="failed", reason=reason
    )
    return None
