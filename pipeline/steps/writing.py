"""The row of a step and the audit record of an intent, as openings, refusals and once keys write them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, Unpack

from sqlalchemy import Connection, func

from identity import audit
from identity.model import Leased
from identity.sql.columns import is_among
from identity.sql.prepared import Prepared
from identity.sql.rows import insert_for
from pipeline.jobs.intents import Intent
from pipeline.jobs.moves import StepColumns, move_step, step_sources
from pipeline.states import StepState
from pipeline.tables import steps

# These change only in a job that was replayed before anything was done.
_ASKED = ("action", "occurrence", "named", "request_hash", "parameters", "once_key")


def write_step(
    connection: Connection, intent: Intent, state: StepState, now: datetime, **values: Unpack[StepColumns]
) -> bool:
    """Insert the step with this decision, or move the existing one to *state*. False: its state does not allow it.

    While a call has no outcome, the step's state forbids a refusal: it stays unknown, and the caller ends the job. A
    step that only reads is moved back to OPEN first.
    """
    if intent.reads and state is not StepState.OPEN:
        move_step(connection, intent.step, StepState.OPEN)
    row = {
        "id": intent.step,
        "job_id": intent.job.id,
        "position": intent.position,
        "action": intent.action,
        "occurrence": intent.occurrence,
        "named": intent.named,
        "principal_id": intent.principal,
        "pattern": intent.decision.pattern,
        "reason": intent.decision.reason,
        "policy_version": intent.decision.policy,
        "request_hash": intent.request_hash,
        "parameters": dict(intent.parameters),
        "once_key": intent.once,
        "state": state,
        "opened_at": now,
        **values,
    }
    columns = (*_ASKED, "principal_id", "pattern", "reason", "policy_version", "state", *values)
    if intent.request_changed:
        columns = (*columns, "opened_at")
    return _upsert(connection.dialect.name, state, columns).run(connection, row).rowcount == 1


@cache
def _upsert(dialect: str, to: StepState, again: tuple[str, ...]) -> Prepared:
    """Build the upsert of a step, which on conflict updates the columns *again*."""
    allowed = [*step_sources(to), *([to] if to is StepState.OPEN else [])]  # from OPEN to OPEN: a further attempt
    statement = insert_for(dialect, steps)
    newest = {column: statement.excluded[column] for column in again}
    # A later opening, by a newer workflow, may take a key. It is never released here, as it may be owned.
    newest["once_key"] = func.coalesce(statement.excluded.once_key, steps.c.once_key)
    found = is_among(steps.c.state, *allowed)
    return Prepared(statement.on_conflict_do_update(index_elements=["job_id", "position"], set_=newest, where=found))


def record_intent(
    connection: Connection,
    intent: Intent,
    kind: str,
    *,
    id: str,
    at: datetime,
    outcome: str,
    number: int | None = None,
    lease: Leased | None = None,
    attempted: bool = False,
    reason: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write the audit record of an event of a step, with the authority that the step has.

    *attempted*: it is about this attempt, rather than the step. *number* is its ledger number, if one is drawn.
    """
    audit.record(
        connection,
        kind,
        intent.whom(lease),
        intent.work(attempted=attempted),
        id=id,
        at=at,
        number=number,
        outcome=outcome,
        reason=reason or intent.decision.reason,
        detail={**intent.authority, **(detail or {})},
    )
