"""Operator actions on jobs: cancel one, settle its calls of unknown outcome, or replay dead ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from identity import audit
from identity.audit import Act, AsWhom, Work
from identity.errors import BadInput, NotInState
from pipeline.authoring.registry import Registry
from pipeline.jobs import bells
from pipeline.jobs.moves import move_job
from pipeline.ledger.forgotten import no_job
from pipeline.model import Bell
from pipeline.states import ENDED, JobState
from pipeline.steps.replay import replay_job
from pipeline.steps.resolution import Resolution, resolve_by_hand
from pipeline.tables import jobs
from pipeline.views import operator_queries
from pipeline.views.unanswered import UnansweredStep


@dataclass(frozen=True, kw_only=True)
class ReplayedJobs:
    """The result of replaying jobs."""

    jobs: tuple[str, ...]
    refused: tuple[str, ...]  # a sentence each, saying why
    bells: tuple[Bell, ...]


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """The bells and revocations to ring for once a person's verdict on a call is committed."""

    bells: tuple[Bell, ...]
    revocations: tuple[str, ...]  # those whose receipts report the call as "unknown"


@dataclass(frozen=True, kw_only=True)
class ResolvedAll:
    """The result of one verdict on very many calls."""

    calls: tuple[str, ...]
    refused: tuple[str, ...]  # a sentence each, saying why
    bells: tuple[Bell, ...]
    revocations: tuple[str, ...]


def cancel(connection: Connection, id: str, act: Act, *, though_it_runs: bool = True) -> JobState:
    """Cancel a job: at once if it is queued or waits, at its next step if it runs. Raises BadInput.

    A job that is already stopping or cancelled is left as it is. Without *though_it_runs*, a job that has started since
    it was looked at raises NotInState.
    """
    found = select(jobs.c.state, jobs.c.tenant_id, jobs.c.agent_id).where(jobs.c.id == id)
    # Locked: a worker claims it either before this or after, so it stops or is cancelled, and nobody needs to try
    # again.
    job = connection.execute(found.with_for_update()).one_or_none()
    if job is None:
        raise no_job(connection, id)
    if job.state in (JobState.STOPPING, JobState.CANCELLED):
        return JobState(job.state)
    if job.state in ENDED:
        raise NotInState(f"job {id} is {job.state} already")
    if job.state == JobState.RUNNING and not though_it_runs:
        raise NotInState("the job is running by now: say below that it is to stop in the middle")
    to = JobState.STOPPING if job.state == JobState.RUNNING else JobState.CANCELLED
    move_job(connection, id, to, source=JobState(job.state), reason=f"cancelled by {act.by}")
    whom = AsWhom(tenant=job.tenant_id, agent=job.agent_id)
    audit.record_act(connection, "job.cancelled", whom, act, work=Work(job=id), outcome=str(to))
    return to


def resolve(connection: Connection, id: str, found_out: Resolution, act: Act, *, workflows: Registry) -> Resolved:
    """Settle a job's calls of unknown outcome as a person says, by the rules of `resolve_by_hand`. Raises BadInput.

    Each call has its own audit record, with the call's id rather than the act's.
    """
    revocations = resolve_by_hand(connection, id, found_out, act, workflows)
    job = operator_queries.any_job(connection, id)
    rung = bells.ring_due(connection, job["tenant_id"], job["pattern"])
    return Resolved(bells=tuple(rung), revocations=tuple(revocations))


def resolve_all(
    connection: Connection, steps: Sequence[UnansweredStep], act: Act, *, workflows: Registry
) -> ResolvedAll:
    """Settle these calls as having had no effect. Steps that moved meanwhile are left alone and reported."""
    done: list[str] = []
    refused: list[str] = []
    rung: list[Bell] = []
    revocations: dict[str, None] = {}
    for step in steps:
        found_out = Resolution(calls=step.calls, effect=False)
        try:
            resolved = resolve(connection, step.job, found_out, act, workflows=workflows)
        except BadInput as error:
            refused.append(str(error))
        else:
            done += step.calls
            rung += resolved.bells
            revocations |= dict.fromkeys(resolved.revocations)
    return ResolvedAll(calls=tuple(done), refused=tuple(refused), bells=tuple(rung), revocations=tuple(revocations))


def replay_one(
    connection: Connection,
    id: str,
    act: Act,
    *,
    workflows: Registry,
    subject: str | None = None,
    people: Sequence[str] = (),
) -> tuple[Bell, ...]:
    """Accept a dead or cancelled job again. Returns the bells to ring. Raises BadInput.

    *people*: possible holders of the API key that asks for it. Its audit record uses the job's id, not the act's, as
    one act may replay several jobs.
    """
    job = operator_queries.any_job(connection, id)
    declared = workflows.find(job["workflow"])
    reads = declared.reads if declared is not None else ()
    replay_job(connection, id, by=act.by, why=act.why, at=act.now, subject=subject, people=people, reads=reads)
    return bells.ring_due(connection, job["tenant_id"], job["pattern"])


def replay_all(
    connection: Connection, ids: Sequence[str], act: Act, *, workflows: Registry, subject: str | None = None
) -> ReplayedJobs:
    """Replay each of these jobs; one that moved meanwhile is reported and does not stop the rest."""
    done: list[str] = []
    refused: list[str] = []
    rung: list[Bell] = []
    for id in ids:
        try:
            rung += replay_one(connection, id, act, workflows=workflows, subject=subject)
        except BadInput as error:
            refused.append(str(error))
        else:
            done.append(id)
    return ReplayedJobs(jobs=tuple(done), refused=tuple(refused), bells=tuple(rung))
