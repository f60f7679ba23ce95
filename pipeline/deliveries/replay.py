"""Replay of a stored delivery: start what it would start now.

Meant for events that came before a workflow listened. A delivery starts a workflow at most once. A replay adds what is
missing: a job for a workflow that has none from this delivery, and another try for a dead one. Jobs that ran or are
running are left alone, so a replay may be repeated. Cancelled jobs are left alone as well unless requested: a
revocation or a person ended them deliberately. A signal is never replayed: what it withdrew may have been granted again
since.

A delivery that could not be read on arrival has neither its event nor its sender's id. The replay that can read it
writes both, so that it repeats no other and none repeats it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, select, update
from sqlalchemy.exc import IntegrityError

from identity import audit
from identity.audit import Act, AsWhom, Work
from identity.errors import BadInput
from pipeline.authoring.matching import Considered
from pipeline.authoring.registry import Registry
from pipeline.deliveries.acceptance import start_jobs
from pipeline.deliveries.plan import Start
from pipeline.deliveries.weighing import Does, Fate, Stored, Weighed, weigh
from pipeline.jobs.bells import first_bells
from pipeline.jobs.tenant_setup import setup_for
from pipeline.model import Bell, DeliveryOutcome, LeftOut
from pipeline.operators import names_of
from pipeline.steps.replay import replay_job
from pipeline.tables import deliveries, jobs


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """The result of a replay."""

    fates: tuple[Fate, ...]
    jobs: tuple[str, ...] = ()
    bells: tuple[Bell, ...] = ()
    settled: str = ""  # why it left the list of the misread; "" if it did not


def replay(
    connection: Connection,
    delivery: Stored,
    considered: Sequence[Considered],
    act: Act,
    *,
    installed: Registry,
    cancelled: bool = False,
    new_jobs: Sequence[str],
    subject: str | None = None,
) -> Replayed:
    """Carry out what `weigh` returns. *new_jobs*: an id for each of *considered*; *subject*: as for a job's replay.

    Raises BadInput if the delivery is gone, or was received again at this moment.
    """
    # Its row is locked first: of two concurrent replays, the second sees the jobs of the first.
    this = deliveries.c.id == delivery.id
    connection.execute(update(deliveries).where(this).values(outcome=deliveries.c.outcome))
    # Its jobs are locked as well: none is pruned, compensated or accepted again between the decision and the action.
    of_it = select(jobs.c.id).where(jobs.c.delivery_id == delivery.id)
    connection.execute(of_it.order_by(jobs.c.id).with_for_update())
    weighed = weigh(connection, delivery, considered, installed=installed, cancelled=cancelled)
    fates, tenant = weighed.fates, weighed.tenant
    if tenant is None or not (weighed.acts or weighed.settles):
        return Replayed(fates=fates)
    _claim(connection, delivery, weighed)
    starting = [
        Start(job=job, match=fate.match, config=fate.config, replayed_by=names_of(act.by, subject))
        for job, fate in zip(new_jobs, fates, strict=True)
        if fate.does is Does.START and fate.match and fate.config is not None
    ]
    again = [
        (fate.job, one.workflow, fate.event)
        for one, fate in zip(considered, fates, strict=True)
        if fate.does is Does.AGAIN and fate.job
    ]
    if starting:
        here = setup_for(connection, tenant, delivery.connection, [start.match for start in starting])
        start_jobs(connection, here, delivery.connection, delivery.id, starting, now=act.now)
        for start in starting:
            by_hand = replace(act, audit_id=f"{start.job}.started")
            whom, work = AsWhom(tenant=tenant, agent=start.match.workflow.agent), Work(job=start.job)
            audit.record_act(connection, "job.started", whom, by_hand, work=work, outcome="accepted")
    for job, workflow, event in again:
        replay_job(connection, job, by=act.by, at=act.now, subject=subject, event=event, reads=workflow.reads)
    made = (*(start.job for start in starting), *(job for job, _, _ in again))
    _conclude(connection, delivery, weighed, tenant, act, made)
    workflows = [one.workflow for one, fate in zip(considered, fates, strict=True) if fate.does is not Does.NOTHING]
    bells = first_bells(connection, tenant, workflows)
    return Replayed(fates=fates, jobs=made, bells=bells, settled=weighed.settles)


def _claim(connection: Connection, delivery: Stored, weighed: Weighed) -> None:
    """Write the event and the sender's id, as read now. A repetition keeps its id: the one read now is the other's.

    This comes before any job: while it waits for a concurrent acceptance of the same event, it holds no row that jobs
    share and that the acceptance may wait for. Raises BadInput if that acceptance is committed.
    """
    id = delivery.delivery_id if weighed.repeats is None else weighed.was.delivery_id
    read = {"event": delivery.event, "delivery_id": id}
    try:
        connection.execute(update(deliveries).where(deliveries.c.id == delivery.id).values(read))
    except IntegrityError as error:  # on PostgreSQL its repetition was committed since it was looked for
        raise BadInput(f"{delivery.id} was received again at this moment: replay it once more") from error


def _conclude(
    connection: Connection, delivery: Stored, weighed: Weighed, tenant: str, act: Act, made: Sequence[str]
) -> None:
    """Write what came of the delivery."""
    was, repeats = weighed.was, weighed.repeats
    accepted = made or was.outcome == DeliveryOutcome.ACCEPTED
    outcome = DeliveryOutcome.ACCEPTED if accepted else DeliveryOutcome.IGNORED
    came_to = f"{len(made)} job(s)" if repeats is None else weighed.settles
    told = {
        "tenant_id": tenant,
        "outcome": outcome,
        "reason": "; ".join((f"replayed by {act.by}: {came_to}", *weighed.misread)),
        "left_out": LeftOut.MISREAD if weighed.misread else None,
    }
    connection.execute(update(deliveries).where(deliveries.c.id == delivery.id).values(told))
    # The event, outcome and reason are those that were stored before.
    before = {"event": was.event, "outcome": was.outcome, "reason": was.reason}
    detail = {"delivery": delivery.id, "jobs": list(made), **before}
    audit.record_act(connection, "delivery.replayed", AsWhom(tenant=tenant), act, outcome=outcome, detail=detail)
