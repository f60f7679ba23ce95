"""A stored step as a later run reaches it: its result, its other outcome, or a divergence."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError
from sqlalchemy import Row

from identity.errors import BadInput
from pipeline.action import Action, Result
from pipeline.run import ActionFailed, Diverged, OnceUsed, StepRefused, StepSkipped, UpstreamGone
from pipeline.states import StepState

R = TypeVar("R", bound=Result)

_HOW_TO_AGREE = "a workflow must do the same between its steps on every run; finish old jobs with the old code"


def result_of(action: Action[R], stored: Any, *, position: int, owner: str | None = None) -> R:
    """Return a step's stored result; *owner* is the job that did it, under a once key. Raises Diverged."""
    try:
        return action.result.model_validate(stored)  # type: ignore[return-value]
    except ValidationError as error:
        whose = "" if owner is None else f" which is job {owner}'s,"
        raise Diverged(
            f"the result of step {position}, {action.action_name()},{whose} does not fit {action.result.__name__}: "
            "give a new field of it a default, or finish old jobs with the old code"
        ) from error


def new_result_of(action: Action[R], dumped: Any, *, position: int) -> R:
    """Return the result of a step done just now, as every later run will read it. Raises BadInput."""
    try:
        return action.result.model_validate(dumped)  # type: ignore[return-value]
    except ValidationError as error:
        raise BadInput(
            f"step {position} was done, and what {action.action_name()} read of it is not read back as "
            f"{action.result.__name__}: a result has to be the same once it was JSON; with one that is, replay the job"
        ) from error


def may_change(stored: Row[Any]) -> bool:
    """True if the function may ask for something else in this step's place: see `reopen_steps`."""
    return stored.state == StepState.OPEN and not stored.request_hash


def came_out_since(before: Row[Any], stored: Row[Any]) -> bool:
    """True if an earlier step ended after *stored* opened, or is open again: by a replay or by a late answer."""
    if before.position >= stored.position:
        return False
    return before.state == StepState.OPEN or (before.closed_at is not None and before.closed_at > stored.opened_at)


def raise_if_ended(stored: Row[Any]) -> None:
    """Raise the outcome of a stored step that ended without a result."""
    why = stored.error or stored.reason
    match StepState(stored.state):
        case StepState.SKIPPED:
            raise StepSkipped(why)
        case StepState.REFUSED:
            raise OnceUsed(why) if stored.adopted_from else StepRefused(why)
        case StepState.FAILED:
            raise UpstreamGone(why) if stored.upstream_gone else ActionFailed(why)


def raise_if_diverged(stored: Row[Any], *, action: str, occurrence: int, named: str, request_hash: str) -> None:
    """Raise Diverged if a stored step is not the one the function asks for now."""
    asked = {"action": action, "occurrence": occurrence, "named": named, "request_hash": request_hash}
    different = [key for key, value in asked.items() if getattr(stored, key) != value]
    if different:
        raise Diverged(
            f"step {stored.position} was {stored.action} as {stored.named}, and now the workflow asks for "
            f"{action} as {named} (different: {', '.join(different)}): {_HOW_TO_AGREE}, or replay "
            "those that have had no effect"
        )


def left_out(stored: Row[Any], *, binds: bool, ends: bool) -> Diverged:
    """Return the error for a function that left out a stored step. *binds*: a replay does not help.

    *ends*: it returned without the step; otherwise it goes on to another.
    """
    otherwise = "" if binds else ", or replay this one"
    does = "ends" if ends else "goes on"
    return Diverged(
        f"step {stored.position} was {stored.action} as {stored.named}, and now the workflow {does} without it: "
        f"{_HOW_TO_AGREE}{otherwise}"
    )
