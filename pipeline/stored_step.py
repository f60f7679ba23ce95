"""A step that is stored, to the run that comes to it again: its result, what else it came to, or a divergence."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError
from sqlalchemy import Row

from pipeline.action import Action, Result
from pipeline.run import ActionFailed, Diverged, OnceUsed, StepRefused, StepSkipped
from pipeline.states import StepState

R = TypeVar("R", bound=Result)

_HOW_TO_AGREE = (
    "a workflow must do the same between its steps on every run; finish old jobs with the old code, or replay them"
)


def result_of(action: Action[R], stored: Any, *, position: int) -> R:
    """What a step returns, of what is stored of it. Raises Diverged."""
    try:
        return action.result.model_validate(stored)  # type: ignore[return-value]
    except ValidationError as error:
        raise Diverged(
            f"the result of step {position}, {action.action_name()}, does not fit {action.result.__name__}: "
            "give a new field of it a default, or finish old jobs with the old code"
        ) from error


def may_change(stored: Row[Any]) -> bool:
    """Whether the function may ask for something else in this step's place: `reopen_steps` says why."""
    return stored.state == StepState.OPEN and not stored.request_hash


def came_out_since(before: Row[Any], stored: Row[Any]) -> bool:
    """Whether an earlier step ends anew after *stored* opened: by a replay, or by an answer that was late."""
    if before.position >= stored.position:
        return False
    return before.state == StepState.OPEN or (before.closed_at is not None and before.closed_at > stored.opened_at)


def raise_if_ended(stored: Row[Any]) -> None:
    """Raise what a stored step came to that ended without a result."""
    why = stored.error or stored.reason
    match StepState(stored.state):
        case StepState.SKIPPED:
            raise StepSkipped(why)
        case StepState.REFUSED:
            raise OnceUsed(why) if stored.adopted_from else StepRefused(why)
        case StepState.FAILED:
            raise ActionFailed(why)


def raise_if_diverged(stored: Row[Any], *, action: str, occurrence: int, named: str, request_hash: str) -> None:
    """Raise Diverged if a stored step is not the one the function asks for now."""
    asked = {"action": action, "occurrence": occurrence, "named": named, "request_hash": request_hash}
    different = [key for key, value in asked.items() if getattr(stored, key) != value]
    if different:
        raise Diverged(
            f"step {stored.position} was {stored.action} as {stored.named}, and now the workflow asks for "
            f"{action} as {named} (different: {', '.join(different)}): {_HOW_TO_AGREE}"
        )


def left_out(stored: Row[Any]) -> Diverged:
    """For a function that has returned without a stored step."""
    return Diverged(
        f"step {stored.position} was {stored.action} as {stored.named}, and now the workflow ends without it: "
        f"{_HOW_TO_AGREE}"
    )
