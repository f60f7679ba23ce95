"""What a workflow function is given: `run.do` is the one way out.

The function is run from the top after every wait or crash. A done step returns what it returned; what is compared with
the stored steps is position, action, occurrence, the principal as named, and the request's hash; a function that
returns without one of them has diverged as well, but where a replay lets it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel

from identity.errors import BadInput
from pipeline.action import Action, Result
from pipeline.workflow import SERVICE, USER, OnRevoke, Who

C = TypeVar("C", bound=BaseModel)
R = TypeVar("R", bound=Result)
T = TypeVar("T")

LONGEST_ONCE = 200  # characters, of a once key
LONGEST_SLEEP = timedelta(days=3650)  # what is stored as a date must be one


class ActionFailed(Exception):
    """The upstream refused the action and nothing was done; a workflow may catch it.

    Where an earlier call of the step may have done it, the job asks a person instead.
    """


class StepRefused(Exception):
    """Policy, a missing principal or a used-up key forbids the step; a workflow may catch it.

    Where an earlier call of the step may have done it, the job is dead instead, until a person has looked.
    """


class StepSkipped(StepRefused):
    """Whom the step would have run as was revoked, and it may be skipped: catch it, and the job goes on without it.

    Not caught, it cancels the job, as a revocation would without SKIP.
    """


class OnceUsed(StepRefused):
    """The step's once key is another job's, which has done something else by it.

    Catch it where to have been done once, in whatever words, is enough.
    """


class Diverged(Exception):
    """The function did not do what it did before: it must be deterministic between steps."""


@dataclass(frozen=True, kw_only=True)
class StepSpec(Generic[R]):
    """One step as the function asks for it, and its place in the run."""

    action: Action[R]
    position: int  # among the run's steps, from 1
    occurrence: int  # among those of its action, from 1
    named: Who | None  # None: policy picks
    once: str | None
    patience: timedelta  # how long "later" is taken for an answer, whatever number of attempts that makes
    on_revoke: OnRevoke | None  # None: as `uses` says


class Steps(Protocol):
    """What carries out the steps of one run; `pipeline.step.StepRunner` does."""

    def perform(self, spec: StepSpec[R]) -> R: ...

    def sleep(self, position: int, occurrence: int, duration: timedelta) -> None: ...


class Run(Generic[C]):
    """One execution of a job's function.

    *config* is the tenant's configuration as it was when the job was accepted, or replayed before it had done anything;
    *user* and *service* name whom a step runs as; *has_user* says whether USER is a known principal.
    """

    def __init__(self, steps: Steps, *, job: str, tenant: str, config: C, has_user: bool) -> None:
        self.job = job
        self.tenant = tenant
        self.config = config
        self.has_user = has_user
        self.user: Who = USER
        self.service: Who = SERVICE
        self._steps = steps
        self._position = 0
        self._occurrences: Counter[str] = Counter()
        self._ended: BaseException | None = None

    def do(
        self,
        action: Action[R],
        *,
        as_: Who | None = None,
        once: str | None = None,
        patience: timedelta = timedelta(),
        on_revoke: OnRevoke | None = None,
    ) -> R:
        """Carry out *action* and return its result.

        *as_* is `run.user`, `run.service` or None: policy picks. *once* makes it happen once for the tenant, across
        jobs: others with the same key get the owner's result. While the upstream says "later", the step is tried as
        often as is set, and beyond that until *patience* has passed since it first opened, or did after the job's
        replay; in between the job waits in the ledger. `on_revoke=STOP` ends the job if a revocation refuses this step,
        though `uses` has steps of its action skipped. Raises ActionFailed and StepRefused (StepSkipped and OnceUsed are
        some). Whatever else it raises ends the run, though the function catch it: Diverged, Unavailable, BadInput for
        what cannot be asked for and for a bug in the action.
        """
        return self._guarded(lambda: self._do(action, named=as_, once=once, patience=patience, on_revoke=on_revoke))

    def sleep(self, duration: timedelta) -> None:
        """Park the job for *duration*; it is kept in the ledger, no thread waits. Raises BadInput above ten years."""
        self._guarded(lambda: self._sleep(duration))

    def raise_how_it_ended(self) -> None:
        """Raise what ended the run, if a step did, whatever the function has made of it."""
        if self._ended is not None:
            raise self._ended

    def _do(
        self, action: Action[R], *, named: Who | None, once: str | None, patience: timedelta, on_revoke: OnRevoke | None
    ) -> R:
        _check(action, named=named, once=once, patience=patience)
        position, occurrence = self._next(action.action_name())
        spec = StepSpec(
            action=action,
            position=position,
            occurrence=occurrence,
            named=named,
            once=once,
            patience=patience,
            on_revoke=on_revoke,
        )
        return self._steps.perform(spec)

    def _sleep(self, duration: timedelta) -> None:
        _check_time("run.sleep sleeps for", duration)
        if duration > LONGEST_SLEEP:
            raise BadInput(f"run.sleep sleeps for {LONGEST_SLEEP.days} days at most, and was asked for {duration}")
        position, occurrence = self._next("run.sleep")
        self._steps.sleep(position, occurrence, duration)

    def _next(self, name: str) -> tuple[int, int]:
        self._position += 1
        self._occurrences[name] += 1
        return self._position, self._occurrences[name]

    def _guarded(self, act: Callable[[], T]) -> T:
        # Nothing may be done after a stop, by what caught it or by a `finally`.
        self.raise_how_it_ended()
        try:
            return act()
        except (ActionFailed, StepRefused):
            raise
        except BaseException as ending:
            self._ended = ending
            raise


def _check(action: object, *, named: object, once: object, patience: object) -> None:
    """Raise BadInput for what no step can be asked for with; no type checker may have seen it."""
    if not isinstance(action, Action):
        raise BadInput("run.do takes an action with its parameters, as in run.do(github.GetPull(repo=…, number=…))")
    name = action.action_name()
    if named not in (None, USER, SERVICE):
        raise BadInput(f"{name}: as_ is run.user or run.service, or left out where policy is to pick")
    _check_time(f"{name}: patience is", patience)
    if once is None:
        return
    if not isinstance(once, str) or not once:
        raise BadInput(f"{name}: a once key is a text, and not an empty one: every job would share it")
    if len(once) > LONGEST_ONCE:
        raise BadInput(
            f"a once key has {LONGEST_ONCE} characters at most, and that of {name} has {len(once)}: "
            "make it of ids, or of a digest"
        )


def _check_time(what: str, time: object) -> None:
    if not isinstance(time, timedelta):
        raise BadInput(f"{what} a timedelta, and was given {type(time).__name__}")
