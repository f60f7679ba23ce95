"""A step that needs an approval: what approvers are shown, and the wait for their answer."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, select

from identity.model import PrincipalKind
from identity.tables import principals
from pipeline.accounts.abilities import in_words
from pipeline.approvals import requested
from pipeline.approvals.requested import Asked, NotApproved
from pipeline.approvals.shown import IN_DOUBT, Actor, Shown, Somebody
from pipeline.execution.attempt_intent import intent_of, policy_moved, record_refusal
from pipeline.execution.interruption import RunEnded
from pipeline.execution.services import Services
from pipeline.execution.step_at_hand import StepAtHand
from pipeline.jobs.intents import Approved, Ended, PolicyMoved
from pipeline.states import Purpose
from pipeline.upstream import Written
from pipeline.views.operator_queries import any_job
from pipeline.views.wording import started_by


def approved(services: Services, step: StepAtHand) -> Approved | None:
    """Return the approval that lets the step open; None: it needs none.

    Raises RunEnded if the job waits for one, StepRefused if it was not given, and RunAgain.
    """
    if not step.decision.constraints.approvals:
        return None
    written = step.written(Purpose.CALL)  # nobody is asked to approve a request that cannot be sent
    intent = intent_of(services, step, purpose=Purpose.CALL)
    id = services.ids("apr")

    def ask(connection: Connection) -> Asked:
        shown = what_is_shown(step, written, _names(connection, step), started_by=_started_by(connection, step))
        return requested.ask(connection, intent, id=id, shown=shown.document)

    match services.store.write(ask):
        case Approved() as given:
            return given
        case NotApproved(reason=reason):
            raise record_refusal(services, intent, reason)
        case Ended(reason=reason, moved=moved):
            raise RunEnded(reason, moved=moved)
        case PolicyMoved():
            raise policy_moved()


def what_is_shown(step: StepAtHand, written: Written, names: Mapping[str, str], *, started_by: str) -> Shown:
    """Return all that an approver is told, except the quorums. *names*: of the principals, by id."""
    action, job = step.action, step.job
    money = action.money()
    return Shown(
        does=in_words(type(action)),
        action=step.name,
        provider=step.through.provider,
        resource=action.acts_on(),
        amount=None if money is None else str(money),
        parameters=action.model_dump(mode="json"),
        as_whom=Actor(
            id=step.principal,
            name=names.get(step.principal, step.principal),
            kind=str(step.decision.kind),
            pattern=str(step.decision.pattern),
        ),
        on_behalf_of=None if job.user is None else Somebody(id=job.user, name=names.get(job.user, job.user)),
        agent=job.agent,
        workflow=job.workflow,
        job=job.id,
        step=step.position,
        why=step.decision.reason,
        through=f"{step.through.id}, {step.through.api_url}",
        started_by=started_by,
        request_sha256=written.sha256(),
        in_doubt=IN_DOUBT if step.earlier.in_doubt else None,
    )


def _started_by(connection: Connection, step: StepAtHand) -> str:
    return started_by(connection, any_job(connection, step.job.id))


def _names(connection: Connection, step: StepAtHand) -> dict[str, str]:
    asked = [one for one in (step.principal, step.job.user) if one is not None]
    rows = connection.execute(
        select(principals.c.id, principals.c.name, principals.c.kind).where(principals.c.id.in_(asked))
    )
    return {row.id: row.name if row.kind == PrincipalKind.USER else "the service" for row in rows}
