"""What a workflow function is given: `run.do` is the one way out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from pipeline.action import Action, Result
from pipeline.workflow import SERVICE, USER, Who

C = TypeVar("C", bound=BaseModel)
R = TypeVar("R", bound=Result)


class ActionFailed(Exception):  # noqa: N818
    """The upstream refused the action and nothing was done; a workflow may catch it."""


class StepRefused(Exception):  # noqa: N818
    """Policy, a missing principal or a missing scope forbids the step; a workflow may catch it."""


class Run(Generic[C]):
    """One execution of a job's function. It is re-run from the top; done steps return what they returned."""

    config: C
    tenant: str
    user: Who = USER
    service: Who = SERVICE
    has_user: bool

    def do(self, action: Action[R], *, as_: Who | None = None, once: str | None = None) -> R:
        """Carry out *action* as the user, the service or (None) whom policy picks, and return its result."""
        raise NotImplementedError

    def sleep(self, duration: timedelta) -> None:
        """Park the job for *duration*; the time is the ledger's, not a thread's."""
        raise NotImplementedError
