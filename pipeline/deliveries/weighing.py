"""What a replay of a stored delivery would do now, workflow by workflow. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Row, select

from pipeline.authoring.matching import Considered, Match
from pipeline.authoring.registry import Registry
from pipeline.deliveries.tenant import whose_delivery
from pipeline.events import ExternalUser
from pipeline.jobs import pins
from pipeline.jobs.configurations import refusal
from pipeline.jobs.missing_workflows import not_installed
from pipeline.jobs.tenant_setup import setup_for
from pipeline.ledger.forgotten import no_delivery
from pipeline.model import DeliveryOutcome, LeftOut
from pipeline.states import CUT_SHORT, JobState
from pipeline.steps.replay import compensated_by
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
_OF_DELIVERY = (
    deliveries.c.tenant_id,
    deliveries.c.delivery_id,
    deliveries.c.event,
    deliveries.c.outcome,
    deliveries.c.reason,
    deliveries.c.left_out,
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
    """A stored delivery as it is read now, which may be more than was read of it on arrival."""

    id: str
    connection: str
    event: str
    delivery_id: str  # the sender's id
    installation: str | None
    workspace: str | None = None  # within that organization


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """What a replay of a delivery would do now."""

    tenant: str | None  # to start jobs for; None: a replay does nothing
    fates: tuple[Fate, ...]  # one for each workflow considered
    absent: tuple[Fate, ...]  # of a listed delivery: workflows that are on and not installed here
    misread: tuple[str, ...]  # why workflows that are on would still lack their job, or may lack it
    settles: str  # why it would leave the list of the misread; "" if it stays there, or is not on it
    repeats: str | None  # the delivery that is stored under the sender's id read now
    was: Row[*tuple[Any, ...]]  # how it is stored

    @property
    def acts(self) -> bool:
        """True if a replay would start or restart jobs."""
        return any(fate.does is not Does.NOTHING for fate in self.fates)

    @property
    def lacks_job(self) -> bool:
        """True if a workflow that is on has no job of it, whether a replay would start one or not."""
        return bool(self.misread) or any(fate.does is Does.START for fate in self.fates)


def weigh(
    connection: Connection,
    delivery: Stored,
    considered: Sequence[Considered],
    *,
    installed: Registry,
    cancelled: bool = False,
) -> Weighed:
    """Return what a replay would do now. Writes nothing. Raises BadInput if the delivery is gone.

    *installed*: the workflows of this process; *cancelled*: replay cancelled jobs as well.
    """
    row = connection.execute(select(*_OF_DELIVERY).where(deliveries.c.id == delivery.id)).one_or_none()
    if row is None:
        raise no_delivery(connection, delivery.id)
    tenant, barred = _whose(connection, delivery, row.tenant_id)
    repeats = None if delivery.delivery_id == row.delivery_id else _stored_under_its_id(connection, delivery)
    never = f"it is a repetition of {repeats}" if repeats else ""
    # A repetition leaves the list only if nothing is left to start by the delivery that it repeats.
    lacking = False
    if repeats is not None:
        lacking = weigh(connection, replace(delivery, id=repeats), considered, installed=installed).lacks_job
    if lacking:
        never += f", which lacks a job: `aswhom deliveries replay {repeats}`"
    if row.outcome == DeliveryOutcome.SIGNAL:
        never = "a signal is never replayed: what it withdrew may have been given anew"
    if never:
        fates = [Fate(workflow=one.workflow.name, does=Does.NOTHING, reason=never) for one in considered]
    else:
        of_it = select(*_OF_JOB).where(jobs.c.delivery_id == delivery.id)
        started = {job.workflow: job for job in connection.execute(of_it)}
        fates = [
            _fate_of_job(connection, delivery, one, job, cancelled=cancelled, barred=barred)
            if (job := started.get(one.workflow.name)) is not None
            else _fate_without_job(connection, one, tenant, barred)
            for one in considered
        ]
    misread = [
        fate.reason
        for one, fate in zip(considered, fates, strict=True)
        if (one.misfit or one.match) and fate.does is Does.NOTHING and fate.job is None and fate.config is not None
    ]
    listed = row.left_out == LeftOut.MISREAD or row.outcome == DeliveryOutcome.UNRECOGNISED
    absent = _absent(connection, installed, tenant) if listed and tenant is not None else ()
    misread += [fate.reason for fate in absent]
    settles = never or "it can be read, and no workflow that is on would lack its job"
    return Weighed(
        tenant=tenant,
        fates=tuple(fates),
        absent=absent,
        misread=tuple(misread),
        settles=settles if listed and tenant is not None and not (misread or lacking) else "",
        repeats=repeats,
        was=row,
    )


def _absent(connection: Connection, installed: Registry, tenant: str) -> tuple[Fate, ...]:
    """Return the workflows that are on for *tenant* and not installed here: one may be what misread the delivery."""
    names = not_installed(connection, installed, tenant=tenant)
    why = (
        "{name} is on for {tenant} and not installed here, so whether it can read this is not known: replay where it "
        "is installed, or `aswhom workflows disable {name} --tenant {tenant}`"
    )
    return tuple(Fate(workflow=name, does=Does.NOTHING, reason=why.format(name=name, tenant=tenant)) for name in names)


def _whose(connection: Connection, delivery: Stored, came: str | None) -> tuple[str | None, str]:
    """Return the tenant to start jobs for, or None and why not. A delivery never moves from *came* to another."""
    whose = whose_delivery(connection, delivery.connection, delivery.installation, delivery.workspace)
    if whose.tenant is not None and came not in (None, whose.tenant):
        return None, f"it came as {came}'s, and its installation is another tenant's now"
    return whose.tenant, whose.refusal if whose.tenant is None else ""


def _stored_under_its_id(connection: Connection, delivery: Stored) -> str | None:
    by_id = (deliveries.c.connection_id == delivery.connection) & (deliveries.c.delivery_id == delivery.delivery_id)
    return connection.execute(select(deliveries.c.id).where(by_id)).scalar_one_or_none()


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
