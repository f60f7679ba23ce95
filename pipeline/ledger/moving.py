"""The movers of steps and attempts: every write of their states carries the table's sources as its condition."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, TypedDict, Unpack

from sqlalchemy import Connection, Row, Update, bindparam, update

from pipeline.states import ATTEMPT_MOVES, STEP_MOVES, AttemptState, StepState
from pipeline.tables import attempts, in_states, steps

# What a replay opens again. No run does: a call that is late must not undo a refusal, unless it had its effect.
_REPLAYED = (StepState.REFUSED, StepState.FAILED, StepState.SKIPPED)


class StepColumns(TypedDict, total=False):
    """What a move of a step may write beside the state: plain values, as they are bound."""

    error: str | None
    closed_at: datetime | None
    result: Mapping[str, Any]
    external_id: str | None
    adopted_from: str | None
    pattern: str | None
    reason: str | None


class AttemptColumns(TypedDict, total=False):
    """What a move of an attempt may write beside the state: plain values, as they are bound."""

    closed: int
    closed_at: datetime
    status: int | None
    upstream_request_id: str | None
    error: str | None


def step_sources(to: StepState) -> list[str]:
    """The states from which a run may move a step to *to*."""
    return [state for state in STEP_MOVES.sources(to) if to is not StepState.OPEN or state not in _REPLAYED]


def move_step(connection: Connection, step: str, to: StepState, **values: Unpack[StepColumns]) -> bool:
    """Move one step of a run; every other column of the move is in *values*. False: its state does not allow it."""
    return connection.execute(_move_step(to), {"step": step, "state": to, **values}).rowcount == 1


def reopen_steps(connection: Connection, job: str, *, unbound: bool = False) -> None:
    """Open what was refused, failed or skipped again: *job* is replayed by a person.

    *unbound*: nothing was done, and the function may ask for something else at each position. Such a step has no hash.
    """
    for source in _REPLAYED:
        STEP_MOVES.check(source, StepState.OPEN)
    ended = (steps.c.job_id == job) & steps.c.state.in_(_REPLAYED)
    connection.execute(
        update(steps).where(ended).values(state=StepState.OPEN, error=None, closed_at=None, adopted_from=None)
    )
    if unbound:
        connection.execute(update(steps).where(steps.c.job_id == job).values(request_hash=""))


def move_attempt(
    connection: Connection, attempt: str, to: AttemptState, **values: Unpack[AttemptColumns]
) -> Row[Any] | None:
    """Move one attempt, and return its row; every other column of the move is in *values*. None: it was resolved."""
    return connection.execute(_move_attempt(to), {"attempt": attempt, "state": to, **values}).one_or_none()


# Built once for each state: every step goes through them.


@cache
def _move_attempt(to: AttemptState) -> Any:
    condition = (attempts.c.id == bindparam("attempt")) & in_states(attempts.c.state, ATTEMPT_MOVES.sources(to))
    return update(attempts).where(condition).returning(attempts)


@cache
def _move_step(to: StepState) -> Update:
    return update(steps).where((steps.c.id == bindparam("step")) & in_states(steps.c.state, step_sources(to)))
