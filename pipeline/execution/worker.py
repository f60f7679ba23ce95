"""The worker: answers a bell by claiming a job, runs its function, and records in the ledger how it ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection

from identity.backoff import doubled, scattered
from identity.errors import AccountRefused, BadInput, Misconfigured, Unavailable
from identity.sql.store import CommitUnknown
from pipeline import metrics
from pipeline.authoring.registry import Registry
from pipeline.execution.interruption import AskOperator, Interruption, RunAgain, RunEnded, UpstreamAway
from pipeline.execution.services import Services
from pipeline.execution.step import StepRunner
from pipeline.fields import misfitting
from pipeline.jobs import awaited, bells, claims
from pipeline.jobs.claims import ClaimedJob
from pipeline.model import Bell, Ring
from pipeline.revocation.compensation import compensated_revocation
from pipeline.revocation.declaration import REACHING, load_without_receipt
from pipeline.run import ActionFailed, Diverged, Run, StepRefused, StepSkipped
from pipeline.states import ENDED, JobState, Wait
from pipeline.steps import stored as ledger_steps
from pipeline.throttle.limits import LONGEST_WAIT

log = logging.getLogger(__name__)
M = TypeVar("M", bound=BaseModel)

# Errors whose class decides how the job goes on. Any other error is a bug and spends a run.
ENDINGS = (Unavailable, CommitUnknown, Misconfigured, ActionFailed, StepRefused, Diverged, BadInput, Interruption)


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """Time limits of claims, and the number of times that a job may fail."""

    claim_for: timedelta = timedelta(seconds=60)
    runs: int = 5
    backoff: timedelta = timedelta(seconds=2)
    misconfigured_delay: timedelta = timedelta(minutes=1)
    unknown_expires: timedelta = timedelta(days=14)
    # before the first check: the call's answer may be late, not lost
    unknown_looked_at: timedelta = timedelta(minutes=1)


class Worker:
    """Runs jobs. One instance serves all threads of a process."""

    def __init__(self, services: Services, workflows: Registry, ring: Ring, settings: WorkerSettings) -> None:
        self._services = services
        self._store = services.store
        self._workflows = workflows
        self._ring = ring
        self._settings = settings
        # Retries while a claim stands, unless the process is told to stop. After that the claim lapses, which also ends
        # the run, but spends it.
        self._insistent = replace(services.persistent, within=settings.claim_for, gives_up=services.stopping)
        self._lock = threading.Lock()
        self._active: dict[int, ClaimedJob] = {}  # by thread

    def handle(self, job_id: str, *, lapses: int | None = None) -> None:
        """Answer a bell: claim the work it permits and run it. The message authorizes nothing."""
        try:
            job = self._store.write(
                lambda c: claims.claim(c, job_id, claim_for=self._settings.claim_for, lapses=lapses)
            )
        except (CommitUnknown, Unavailable) as error:
            # The reconciler finds the lapsed claim or the lost bell; either way the job comes back.
            log.warning(
                "claim not confirmed", extra={"action": "job.claim_unknown", "job": job_id, "error": str(error)}
            )
            return
        if job is None:
            metrics.CLAIMS.labels("any", "nothing_due").inc()
            return
        metrics.CLAIMS.labels(str(job.pattern), "claimed").inc()
        metrics.CLAIM_WAIT_SECONDS.labels(str(job.pattern)).observe(job.waited.total_seconds())
        with self._lock:
            self._active[threading.get_ident()] = job
        started_by = {"delivery": job.delivery, "request": job.request}
        whose = {name: id for name, id in started_by.items() if id is not None}
        whose |= {"job": job.id, "tenant": job.tenant, "workflow": job.workflow}
        try:
            with structlog.contextvars.bound_contextvars(**whose):
                self._run(job)
        finally:
            with self._lock:
                self._active.pop(threading.get_ident(), None)

    def _run(self, job: ClaimedJob) -> None:
        try:
            self._call(job)
        except ENDINGS as ending:
            self._conclude(job, ending)
        except Exception as bug:  # a bug ends the run: the ledger gets its class, the log its stack
            log.exception("run failed", extra={"action": "job.run_failed", "error": type(bug).__name__})
            self._spend(job, reason=type(bug).__name__)
        else:
            log.info("job done", extra={"action": "job.done"})
            self._end(job, partial(claims.finish, job=job))

    def _conclude(self, job: ClaimedJob, ending: BaseException) -> None:
        """Act on how a run ended before its function returned; the only place that does."""
        settings, reason = self._settings, str(ending)
        log.info("run ended", extra={"action": "job.run_ended", "ending": type(ending).__name__, "reason": reason})
        match ending:
            case RunEnded(moved=moved):
                metrics.count_end(str(job.pattern), moved)
                self._end(job, _moved_already, insist=False)
            case UpstreamAway(delay=delay, waits_for=waits_for, expires_in=expires_in):
                wait = partial(claims.park, job=job, wait=Wait.UPSTREAM, waits_for=waits_for, due_in=delay)
                self._end(job, partial(wait, expires_in=expires_in, reason=reason))
            case RunAgain(delay=delay, waits_for=waits_for, expires_in=expires_in):
                again = partial(claims.requeue, job=job, delay=delay, waits_for=waits_for, expires_in=expires_in)
                self._end(job, partial(again, reason=reason))
            case Unavailable(retry_after=delay):
                self._end(job, partial(claims.requeue, job=job, delay=delay, reason=reason))
            case CommitUnknown():
                self._end(job, partial(claims.requeue, job=job, delay=settings.backoff, reason=reason))
            case AccountRefused(account=account, retry_after=delay):
                # The account's own organization may have caused it: check again until it is undone or the wait expires.
                log.warning("an account is refused", extra={"action": "job.account_refused", "reason": reason})
                park = partial(
                    claims.park,
                    job=job,
                    wait=Wait.CONSENT,
                    waits_for=awaited.consent_of(account),
                    due_in=max(delay, settings.misconfigured_delay),
                    expires_in=self._services.settings.consent_wait,
                    reason=reason,
                )
                self._end(job, park)
            case Misconfigured():
                # An operator's fault spends no run: the job continues once it is fixed.
                log.error("misconfigured", extra={"action": "job.misconfigured", "reason": reason})
                metrics.MISCONFIGURED.labels(str(job.pattern)).inc()
                self._end(job, partial(claims.requeue, job=job, delay=settings.misconfigured_delay, reason=reason))
            case AskOperator():
                log.warning("a step's outcome is not known", extra={"action": "job.asks", "reason": reason})
                park = partial(
                    claims.park,
                    job=job,
                    wait=Wait.UNKNOWN,
                    waits_for=None,
                    due_in=settings.unknown_looked_at,
                    expires_in=settings.unknown_expires,
                    reason=reason,
                )
                self._end(job, park)
            case StepSkipped():
                log.info("a skipped step ends the run", extra={"action": "job.cancelled", "reason": reason})
                self._end(job, partial(claims.cancel, job=job, reason=reason))
            case _:
                # Another run of the same code would end the same way.
                log.warning("job is dead", extra={"action": "job.dead", "reason": reason})
                self._end(job, partial(claims.bury, job=job, reason=f"{type(ending).__name__}: {reason}"))

    def _call(self, job: ClaimedJob) -> None:
        try:
            workflow = self._workflows.get(job.workflow)
        # the web may know a workflow that this process does not know yet, and a deployment can be fixed
        except BadInput as error:
            raise Misconfigured(f"{error} Who started before it was installed has to be restarted") from error
        event = _fitting("event", workflow.event, job.event, workflow.name)
        config = _fitting("configuration", workflow.config, job.config, workflow.name)
        # No step is written before the job's first claim.
        stored = self._store.read(lambda c: ledger_steps.load(c, job.id)) if job.fence > 1 else {}
        runner = StepRunner(self._services, workflow, job, stored)
        run = Run(runner, job=job.id, tenant=job.tenant, config=config, has_user=job.user is not None)
        try:
            workflow.function(run, event)
        finally:
            run.raise_how_it_ended()
        runner.raise_if_left_out()

    def _spend(self, job: ClaimedJob, *, reason: str, insist: bool = True) -> None:
        """Queue *job* again after a failed run, or bury it."""
        delay = scattered(doubled(self._settings.backoff, job.runs_spent, longest=LONGEST_WAIT))
        spend = partial(
            claims.spend_run, job=job.id, fence=job.fence, limit=self._settings.runs, delay=delay, reason=reason
        )
        self._end(job, spend, insist=insist)

    def _end(self, job: ClaimedJob, move: Callable[[Connection], JobState | None], *, insist: bool = True) -> None:
        """Move the job and ring for its tenant's next one, in one transaction; bells and counts follow the commit.

        *insist*: wait for an unavailable ledger. The move checks the fence, so it is made at most once.
        """

        def end(c: Connection) -> tuple[JobState | None, JobState, str | None, Sequence[Bell]]:
            moved = move(c)
            state, revocation = claims.state_and_revocation(c, job.id)
            return moved, state, revocation, bells.ring_due(c, job.tenant, job.pattern)

        try:
            if insist:
                where = {"action": "job.end_not_stored", "job": job.id}
                ended = self._insistent.write(self._store, end, what="the end of a run", where=where)
            else:
                ended = self._store.write(end)
        except (CommitUnknown, Unavailable) as error:
            # The claim will lapse, and the stored steps record what was done.
            log.warning("end of run not confirmed", extra={"action": "job.end_unknown", "error": str(error)})
            return
        moved, state, revocation, rung = ended
        self._ring.jobs(rung)
        metrics.count_end(str(job.pattern), moved)
        if state in ENDED:
            self._ring_for_revocations(job, revocation)

    def _ring_for_revocations(self, job: ClaimedJob, revocation: str | None) -> None:
        """Ring for the revocations that waited for *job* to end: the one that stopped it, and the one it compensates.

        Skip a revocation that is still reaching jobs: it reads this committed end once it has reached them all. A bell
        would make a second thread reach them at the same time.
        """
        told = [] if revocation is None or self._reaches_jobs(revocation) else [revocation]
        if (compensated := compensated_revocation(job.agent, job.event)) is not None:
            told.append(compensated)
        if told:
            self._ring.revocations(told)

    def _reaches_jobs(self, revocation: str) -> bool:
        try:
            return self._store.read(lambda c: load_without_receipt(c, revocation)).state in REACHING
        except Unavailable:
            return False

    @property
    def active_jobs(self) -> dict[int, str]:
        """The job each thread has claimed, by the thread's ident."""
        with self._lock:
            return {thread: job.id for thread, job in self._active.items()}

    # Called before the watchdog ends the process. Little time is left, so they do not wait for an unavailable ledger.

    def spend(self, overdue: Collection[str]) -> None:
        """Spend a run of each of these jobs, which hang in this process."""
        for job in self._held():
            if job.id in overdue:
                self._spend(job, reason="the run did not end in time and its process was left", insist=False)

    def hand_back(self, *, besides: Collection[str]) -> None:
        """Hand back the claims without spending a run, except those of *besides*, for which one was spent."""
        for job in self._held():
            if job.id not in besides:
                back = partial(claims.requeue, job=job, delay=timedelta(), reason="handed back: its process was left")
                self._end(job, back, insist=False)

    def _held(self) -> list[ClaimedJob]:
        with self._lock:
            return list(self._active.values())


def _moved_already(connection: Connection) -> None:
    """Move nothing: the step that ended the run moved the job, in a transaction that was counted."""


def _fitting(what: str, model: type[M], stored: Mapping[str, Any], workflow: str) -> M:
    """Return *stored* as the workflow declares it now. Raises BadInput, which names the fields and no value."""
    try:
        return model.model_validate(stored)
    except ValidationError as error:
        raise BadInput(f"the stored {what} no longer fits workflow {workflow}: {misfitting(error)}") from error
