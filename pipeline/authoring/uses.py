"""Declarations in `uses`: who each action may run as, and how it responds to a revocation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Flag, StrEnum
from typing import Any, TypeVar

from pydantic import ValidationError

from identity.errors import BadInput
from pipeline.action import Action
from pipeline.authoring.action_checks import check_action


class Who(Flag):
    """The principals that a step may act as."""

    USER = 1
    SERVICE = 2

    def on_revoke(self, then: OnRevoke | Compensation) -> Use:
        """Declare what happens if the authority is revoked before the job has ended; the default is `STOP`."""
        if isinstance(then, Compensation):
            return Use(who=self, on_revoke=OnRevoke.STOP, compensation=then)
        return Use(who=self, on_revoke=then)


USER, SERVICE = Who.USER, Who.SERVICE


class OnRevoke(StrEnum):
    """The effect on a job when an account that one of its actions runs as is revoked."""

    STOP = "stop"  # the job is cancelled; finished steps keep their effects
    SKIP = "skip"  # the step is skipped, and the job goes on without it


STOP, SKIP = OnRevoke.STOP, OnRevoke.SKIP


def on_revoke_of(step: str, declared: OnRevoke, asked: OnRevoke | None) -> OnRevoke:
    """Return the behaviour on revocation for one *step*: as declared in `uses`, or stricter. Raises BadInput.

    A revocation finds its jobs by the declaration, so a looser setting would come too late.
    """
    if asked not in (None, STOP, declared):
        raise BadInput(
            f"{step} may only be stricter about a revocation than `uses`, which says {declared}: "
            "on_revoke=STOP, or nothing"
        )
    return declared if asked is None else asked


@dataclass(frozen=True, kw_only=True)
class Compensation:
    """Cancels the job and follows each finished call of this action with another action, run as the service.

    *make* is pure: it makes the following action from the finished action and its stored result. The workflow need not
    run again, and the answer never changes.
    """

    by: type[Action[Any]]
    make: Callable[[Any, Any], Action[Any]]

    def of(self, action: type[Action[Any]], parameters: Mapping[str, Any], result: Mapping[str, Any]) -> Action[Any]:
        """Return the action that follows a finished *action*, made from its stored fields. Raises BadInput."""
        name = action.action_name()
        try:
            done, had = action.model_validate(parameters), action.result.model_validate(result)
        except ValidationError as error:
            raise BadInput(f"what is stored of a {name} no longer fits it, so nothing can be made to follow") from error
        follows = self.make(done, had)
        if type(follows) is not self.by:
            raise BadInput(
                f"{name} is followed by a {self.by.action_name()}, and its `make` returned {type(follows).__name__}"
            )
        return follows


A = TypeVar("A", bound=Action[Any])


def compensate(by: type[A], make: Callable[[Any, Any], A]) -> Compensation:
    """Undo an effect when a revocation cancels its job: `make(action, result)` returns a *by*.

    It runs as the service, in its own job. Raises TypeError for an action that a service may not do.
    """
    check_action(by)
    if by.facts.attribution:
        raise TypeError(f"{by.action_name()} must be attributable to a person: a compensation runs as the service")
    return Compensation(by=by, make=make)


@dataclass(frozen=True, kw_only=True)
class Use:
    """One action's declaration in `uses`."""

    who: Who
    on_revoke: OnRevoke = OnRevoke.STOP
    compensation: Compensation | None = None


def as_use(declared: Who | Use) -> Use:
    """Return *declared* as a Use; a bare `USER` or `SERVICE` stops on revocation."""
    return declared if isinstance(declared, Use) else Use(who=declared)
