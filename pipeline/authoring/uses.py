"""What a workflow declares of each action: as whom it may run, and what a revocation means for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Flag, StrEnum
from typing import Any, TypeVar

from pydantic import ValidationError

from identity.errors import BadInput
from pipeline.action import Action, check_action


class Who(Flag):
    """Whom a step may act as."""

    USER = 1
    SERVICE = 2

    def on_revoke(self, then: OnRevoke | Compensation) -> Use:
        """As these, and with *then* where the authority is revoked before the job has ended; without it, `STOP`."""
        if isinstance(then, Compensation):
            return Use(who=self, on_revoke=OnRevoke.STOP, compensation=then)
        return Use(who=self, on_revoke=then)


USER, SERVICE = Who.USER, Who.SERVICE


class OnRevoke(StrEnum):
    """What becomes of a job when an account that an action of it runs as is revoked."""

    STOP = "stop"  # the job is cancelled; what it has done stays
    SKIP = "skip"  # the step is skipped, and the job goes on without it


STOP, SKIP = OnRevoke.STOP, OnRevoke.SKIP


def on_revoke_of(step: str, declared: OnRevoke, asked: OnRevoke | None) -> OnRevoke:
    """What a revocation means for one *step*: what `uses` declares of its action, or stricter. Raises BadInput.

    A revocation finds its jobs by what is declared, so what is looser would come too late.
    """
    if asked not in (None, STOP, declared):
        raise BadInput(
            f"{step} may only be stricter about a revocation than `uses`, which says {declared}: "
            "on_revoke=STOP, or nothing"
        )
    return declared if asked is None else asked


@dataclass(frozen=True, kw_only=True)
class Compensation:
    """The job is cancelled, and what this action of it has done is followed by another action, as the service.

    *make* is pure: from the done action and its result, as the ledger has them, it makes what follows. So nothing of
    the workflow is run again to find out, and the answer is the same whenever it is asked for.
    """

    by: type[Action[Any]]
    make: Callable[[Any, Any], Action[Any]]

    def of(self, action: type[Action[Any]], parameters: Mapping[str, Any], result: Mapping[str, Any]) -> Action[Any]:
        """What follows a done *action*, of what is stored of it. Raises BadInput."""
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
    """What to do about an effect whose job was cancelled by a revocation: `make(action, result)` is a *by*.

    It runs as the service, in a job of its own. Raises TypeError for an action that a service may not do.
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
    """A bare `USER` or `SERVICE` stops."""
    return declared if isinstance(declared, Use) else Use(who=declared)
