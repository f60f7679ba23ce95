"""The `Run` object passed to a workflow function; every effect goes through `run.do`.

The function is run from the top after every wait or crash. A finished step returns its stored result. Each step is
compared with the stored one by position, action, occurrence, the principal as named, and the hash of its request. Any
difference is a divergence, as is a function that passes over a stored step or returns before it, unless a replay
allows it. The steps of a part (`Run.part`) are numbered from a round number of their own, so that a later step keeps
its position whether or not a step of the part was refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel

from identity.errors import BadInput
from pipeline.action import Action, Result
from pipeline.authoring.uses import SERVICE, USER, OnRevoke, Who

C = TypeVar("C", bound=BaseModel)
R = TypeVar("R", bound=Result)
T = TypeVar("T")

LONGEST_ONCE = 200  # characters in a once key
LONGEST_PART = 999  # steps in a part, before one, and between two
LONGEST_SLEEP = timedelta(days=3650)  # keeps the stored wake-up time a valid date


class ActionFailed(Exception):
    """The upstream refused the action and nothing was done; a workflow may catch this.

    Not raised if an earlier call of the step may have had its effect: the job then asks a person.
    """


class UpstreamGone(ActionFailed):
    """The upstream was away for as long as the step may wait.

    The next step there would wait as long again, so catch it only to go on at another upstream.
    """


class StepRefused(Exception):
    """Policy, a missing principal or a used once key forbids the step; a workflow may catch this.

    Not raised if an earlier call of the step may have had its effect: the job is then dead until a person has looked.
    """


class StepSkipped(StepRefused):
    """A revocation forbids the step, and its action is declared with SKIP. Catch it to go on without the step.

    If the workflow does not catch it, the job is cancelled, as a revocation would do without SKIP.
    """


class OnceUsed(StepRefused):
    """Another job used the step's once key with other parameters.

    Catch it if one call under that key is enough, whatever its parameters were.
    """


class Diverged(Exception):
    """The function asked for different steps than in an earlier run. Between steps it must be deterministic."""


@dataclass(frozen=True, kw_only=True)
class StepSpec(Generic[R]):
    """One step as the function asks for it, with its place in the run."""

    action: Action[R]
    position: int  # among the run's steps, from 1; in and after a part from a thousand, two thousand, …
    occurrence: int  # among the steps with the same action there, from 1
    named: Who | None  # None: policy chooses
    once: str | None
    patience: timedelta  # how long to keep retrying while the upstream says "later", regardless of the attempt limit
    on_revoke: OnRevoke | None  # None: as declared in `uses`


class Steps(Protocol):
    """Carries out the steps of one run; implemented by `pipeline.execution.step.StepRunner`."""

    def perform(self, spec: StepSpec[R]) -> R: ...

    def sleep(self, position: int, occurrence: int, duration: timedelta) -> None: ...


class Run(Generic[C]):
    """One execution of a job's function.

    *config* is the tenant's configuration from when the job was accepted, or from its replay if it had done nothing by
    then. Pass *user* or *service* to `do` as `as_`. *has_user* is True if USER is a known principal.
    """

    def __init__(self, steps: Steps, *, job: str, tenant: str, config: C, has_user: bool) -> None:
        self.job = job
        self.tenant = tenant
        self.config = config
        self.has_user = has_user
        self.user: Who = USER
        self.service: Who = SERVICE
        self._steps = steps
        self._sections = 0  # begun since the first: by a part, and by its end
        self._in_part = False
        self._position = 0  # in the section
        self._occurrences: Counter[str] = Counter()  # in the section
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

        *as_* is `run.user`, `run.service`, or None to let policy choose. *once* is a key under which the action happens
        at most once per tenant, across jobs: other jobs with the same key get the owning job's result. While the
        upstream says "later", the step is retried up to the configured limit, and after that until *patience* has
        passed since the first of these failures (anew after a replay of the job, or a wait for a person). Between tries
        the job waits in the ledger. `on_revoke=STOP` ends the job if a revocation refuses this step, even if `uses`
        declares its action with SKIP.

        Raises ActionFailed (including its subclass UpstreamGone) and StepRefused (including StepSkipped and OnceUsed).
        Any other error ends the run, even if the function catches it: Diverged, Unavailable, and BadInput for a request
        that cannot be made or a bug in the action.
        """
        return self._guarded(lambda: self._do(action, named=as_, once=once, patience=patience, on_revoke=on_revoke))

    def sleep(self, duration: timedelta) -> None:
        """Park the job in the ledger for *duration*; no thread waits. Raises BadInput for more than ten years."""
        self._guarded(lambda: self._sleep(duration))

    @contextmanager
    def part(self) -> Iterator[None]:
        """Number the steps of a `with` block on their own: the steps after it keep their places whatever it does.

        For work that may be refused while the function goes on with something else. If the block catches ActionFailed
        or StepRefused, or another `with` around it does, a replay of the job can do the refused step and what follows
        it in the block. The number of parts and their order must not depend on how steps in other parts end.

        A step that the block does instead of a refused one stands in the way: a replay may do the refused step as well,
        and then ends the job as diverged. With the same parameters and once key for both, nothing is done twice.

        Raises BadInput, and ends the run, for a part within a part and for one after more than 999 steps.
        """
        self._guarded(self._begin_part)
        try:
            yield
        finally:
            self._in_part = False
            self._begin_section()

    def raise_how_it_ended(self) -> None:
        """Raise the error with which a step ended the run, if one did, even if the function caught it."""
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

    def _begin_part(self) -> None:
        if self._in_part:
            raise BadInput("run.part is within another run.part: end that one first")
        if self._position > LONGEST_PART:
            raise BadInput(f"run.part comes after {self._position} steps: {LONGEST_PART} may come before it")
        self._in_part = True
        self._begin_section()

    def _begin_section(self) -> None:
        self._sections += 1
        self._position = 0
        self._occurrences.clear()

    def _next(self, name: str) -> tuple[int, int]:
        if self._sections and self._position == LONGEST_PART:
            raise BadInput(f"{name} is step {LONGEST_PART + 1} in or after a run.part, where {LONGEST_PART} may be")
        self._position += 1
        self._occurrences[name] += 1
        return self._sections * (LONGEST_PART + 1) + self._position, self._occurrences[name]

    def _guarded(self, act: Callable[[], T]) -> T:
        # Once the run has ended, an `except` or a `finally` in the function must not carry out further steps.
        self.raise_how_it_ended()
        try:
            return act()
        except (ActionFailed, StepRefused):
            raise
        except BaseException as ending:
            self._ended = ending
            raise


def _check(action: object, *, named: object, once: object, patience: object) -> None:
    """Raise BadInput for arguments that no step can have; the function may not have been type-checked."""
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
