"""Replay of a stored delivery: start what it would start now.

Meant for events that came before a workflow listened. A delivery starts a workflow at most once. A replay adds what is
missing: a job for a workflow that has none from this delivery, and another try for a dead one. Jobs that ran or are
running are left alone, so a replay may be repeated. Cancelled jobs are left alone as well unless requested: a
revocation or a person ended them deliberately. A signal is never replayed: what it withdrew may have been granted again
since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Row, select, update

from identity import audit
from identity.audit import Act, AsWhom, Work
from pipeline.authoring.matching import Considered, Match
from pipeline.deliveries.acceptance import start_jobs
from pipeline.deliveries.plan import Start
from pipeline.deliveries.tenant import whose_delivery
from pipeline.events import ExternalUser
from pipeline.jobs import pins
from pipeline.jobs.bells import first_bells
from pipeline.jobs.configurations import refusal
from pipeline.jobs.tenant_setup import setup_for
from pipeline.ledger.forgotten import no_delivery
from pipeline.model import Bell, DeliveryOutcome, LeftOut
from pipeline.operators import names_of
from pipeline.states import CUT_SHORT, JobState
from pipeline.steps.replay import compensated_by, replay_job
from pipeline.tables import deliveries, jobs

_OF_JOB = (
    jobs.c.workflow,
    jobs.c.id,
    jobs.c.tenant_id,
    jobs.c.state,
    jobs.c.reason,
    jobs.c.event,
    jobs.c.user_id,
    jobs.c.triggered_by,
    jobs.c.pruned_at,
)


class Does(StrEnum):
    """The effect of a replay on one workflow."""

    START = "start"  # a new job
    AGAIN = "again"  # its dead job is accepted again, or its cancelled one if requested
    NOTHING = "nothing"


@dataclass(frozen=True, kw_only=True)
class Fate:
    """The outcome of one delivery for one workflow, and why."""

    workflow: str
    does: Does
    reason: str
    job: str | None = None  # the existing one
    # of the existing or new job; None: no job exists and the workflow is not enabled
    config: Mapping[str, Any] | None = None
    match: Match | None = None
    event: Mapping[str, Any] | None = None  # read again, to replace the job's event, which no longer fits


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A delivery as stored, with the installation its body names."""

    id: str
    connection: str
    outcome: str
    installation: str | None
    workspace: str | None = None  # within that organization


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """The result of a replay."""

    fates: tuple[Fate, ...]
    jobs: tuple[str, ...] = ()
    bells: tuple[Bell, ...] = ()
    unmarked: bool = False  # its mark as misread was removed


def weigh(
    connection: Connection, delivery: Stored, considered: Sequence[Considered], *, cancelled: bool = False
) -> tuple[Fate, ...]:
    """Return what a replay would do now for each workflow.

    Writes nothing. *cancelled*: replay cancelled jobs as well.
    """
    if delivery.outcome == DeliveryOutcome.SIGNAL:
        why = "a signal is never replayed: what it withdrew may have been given anew"
        return tuple(Fate(workflow=one.workflow.name, does=Does.NOTHING, reason=why) for one in considered)
    tenant, barred = _whose(connection, delivery)
    started = {
        row.workflow: row for row in connection.execute(select(*_OF_JOB).where(jobs.c.delivery_id == delivery.id))
    }
    return tuple(
        _fate_of_job(connection, delivery, one, job, cancelled=cancelled, barred=barred)
        if (job := started.get(one.workflow.name)) is not None
        else _fate_without_job(connection, one, tenant, barred)
        for one in considered
    )


def unmarks(connection: Connection, delivery: Stored, considered: Sequence[Considered], fates: Sequence[Fate]) -> bool:
    """True if a replay that does *fates* removes the delivery's mark as misread."""
    left_out = connection.execute(select(deliveries.c.left_out).where(deliveries.c.id == delivery.id)).scalar_one()
    tenant, _ = _whose(connection, delivery)
    return left_out == LeftOut.MISREAD and tenant is not None and not _misread(considered, fates)


def _misread(considered: Sequence[Considered], fates: Sequence[Fate]) -> list[str]:
    """Return why workflows that are on still cannot start: such a delivery stays marked until a later replay."""
    return [
        fate.reason
        for one, fate in zip(considered, fates, strict=True)
        if (one.misfit or one.match) and fate.does is Does.NOTHING and fate.job is None and fate.config is not None
    ]


def replay(
    connection: Connection,
    delivery: Stored,
    considered: Sequence[Considered],
    act: Act,
    *,
    cancelled: bool = False,
    new_jobs: Sequence[str],
    subject: str | None = None,
) -> Replayed:
    """Carry out what `weigh` returns. *new_jobs*: an id for each of *considered*; *subject*: as for a job's replay.

    Raises BadInput if the delivery is gone.
    """
    # Its row is locked first: of two concurrent replays, the second sees the jobs of the first.
    this = deliveries.c.id == delivery.id
    if connection.execute(update(deliveries).where(this).values(outcome=deliveries.c.outcome)).rowcount == 0:
        raise no_delivery(connection, delivery.id)
    # Its jobs are locked as well: none is pruned, compensated or accepted again between the decision and the action.
    of_it = select(jobs.c.id).where(jobs.c.delivery_id == delivery.id)
    connection.execute(of_it.order_by(jobs.c.id).with_for_update())
    fates = weigh(connection, delivery, considered, cancelled=cancelled)
    tenant, _ = _whose(connection, delivery)
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
    misread = _misread(considered, fates)
    unmarked = unmarks(connection, delivery, considered, fates)
    if tenant is None or not (starting or again or unmarked):
        return Replayed(fates=fates)
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
    workflows = [one.workflow for one, fate in zip(considered, fates, strict=True) if fate.does is not Does.NOTHING]
    why = "; ".join((f"replayed by {act.by}: {len(made)} job(s)", *misread))
    left_out = LeftOut.MISREAD if misread else None
    told = {"outcome": DeliveryOutcome.ACCEPTED, "reason": why, "left_out": left_out, "tenant_id": tenant}
    connection.execute(update(deliveries).where(this).values(told))
    gave = {"delivery": delivery.id, "jobs": list(made)}
    audit.record_act(connection, "delivery.replayed", AsWhom(tenant=tenant), act, outcome="accepted", detail=gave)
    bells = first_bells(connection, tenant, workflows)
    return Replayed(fates=fates, jobs=made, bells=bells, unmarked=unmarked)


def _whose(connection: Connection, delivery: Stored) -> tuple[str | None, str]:
    """Return the tenant to start jobs for, or None and why not. A delivery never moves to another tenant."""
    came = connection.execute(select(deliveries.c.tenant_id).where(deliveries.c.id == delivery.id)).scalar_one()
    whose = whose_delivery(connection, delivery.connection, delivery.installation, delivery.workspace)
    if whose.tenant is not None and came not in (None, whose.tenant):
        return None, f"it came as {came}'s, and its installation is another tenant's now"
    return whose.tenant, whose.refusal if whose.tenant is None else ""


def _fate_without_job(connection: Connection, one: Considered, tenant: str | None, barred: str) -> Fate:
    """Decide whether to start a workflow without a job of the delivery. *barred*: why nothing of it may start."""
    name = one.workflow.name
    config = pins.enabled(connection, tenant, name) if tenant is not None else None
    fate = Fate(workflow=name, does=Does.NOTHING, reason="", config=config, match=one.match)
    if one.match is None:
        return replace(fate, reason=one.refusal)
    if barred:
        return replace(fate, reason=barred)
    if config is None:
        return replace(fate, reason=f"it is not switched on for tenant {tenant}")
    if fault := refusal(one.workflow, config):
        return replace(fate, reason=fault)
    return replace(fate, does=Does.START, reason=f"it is wanted, and on for tenant {tenant}")


def _fate_of_job(
    connection: Connection,
    delivery: Stored,
    one: Considered,
    job: Row[*tuple[Any, ...]],
    *,
    cancelled: bool,
    barred: str,
) -> Fate:
    """Decide whether an existing job is tried again, and with which configuration."""
    again, reason = _again(connection, job, cancelled=cancelled, barred=barred)
    fate = Fate(workflow=one.workflow.name, does=Does.NOTHING, reason=reason, job=job.id, match=one.match)
    if not again:
        return replace(fate, config=pins.pinned(connection, job.id))
    pin = pins.at_replay(connection, job.id, reads=one.workflow.reads)
    fate = replace(fate, config=pin.config)
    if pin.moved and (fault := refusal(one.workflow, pin.config)):
        return replace(fate, reason=f"{reason}, and {fault}")
    if pin.unbound and one.match is not None and not _fits(one, job.event):
        if not _is_for_the_same(connection, delivery, one.match, job):
            why = "its event, read anew, has another user or sender: only a new delivery starts a job of theirs"
            return replace(fate, reason=f"{reason}, and {why}")
        reason, fate = f"{reason}; its event is read anew", replace(fate, event=one.match.document)
    return replace(fate, does=Does.AGAIN, reason=f"{reason}; {pin.kept}" if pin.kept else reason)


def _again(connection: Connection, job: Row[*tuple[Any, ...]], *, cancelled: bool, barred: str) -> tuple[bool, str]:
    """Return whether a job may be tried again, and why or why not. *barred*: why nothing of its delivery may be."""
    state = f"its job {job.id} is {job.state}"
    if job.state == JobState.CANCELLED and (by_job := compensated_by(connection, job.id)):
        return False, f"{state}, and was compensated by job {by_job}: only a new delivery does it anew"
    if job.state == JobState.CANCELLED and not cancelled:
        why = f" ({job.reason})" if job.reason else ""
        return False, f"{state}{why}, which stays so: `aswhom jobs replay {job.id}` accepts it anew"
    ended = job.state in CUT_SHORT
    if ended and job.pruned_at is not None:
        return False, f"{state} and pruned: its steps are forgotten, and done ones would be done again"
    if ended and barred:
        return False, f"{state}, and {barred}"
    return ended, state


def _fits(considered: Considered, event: Mapping[str, Any]) -> bool:
    """True if a job's event, read by an earlier version of the workflow, is valid for the present one."""
    try:
        considered.workflow.event.model_validate(event)
    except ValidationError:
        return False
    return True


def _is_for_the_same(connection: Connection, delivery: Stored, match: Match, job: Row[*tuple[Any, ...]]) -> bool:
    """True if an event read again has the job's own user and sender, which a replay leaves as they are."""
    user = setup_for(connection, job.tenant_id, delivery.connection, [match]).principal(match.user)
    by = match.triggered_by
    sender = by.name_for_good if isinstance(by, ExternalUser) else by
    return (user, sender) == (job.user_id, job.triggered_by)
