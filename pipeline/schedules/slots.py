"""Firing schedules in the ledger: a slot is a row, so it fires once, however many beats run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Row, select, update

from identity.errors import BadInput, Misconfigured, Unavailable
from identity.failures import Failures
from identity.hold import IS_HELD, find_hold
from identity.sql.rows import insert_new
from identity.sql.store import CommitUnknown, Store
from identity.tables import tenants
from pipeline import metrics
from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.registry import Registry
from pipeline.authoring.timetable import ON_TIME, CatchUp, Owed, Timetable, offset, owed
from pipeline.batches import in_batches
from pipeline.events import Tick
from pipeline.jobs import bells, pins
from pipeline.jobs.new_jobs import NewJob, insert_job
from pipeline.model import Bell
from pipeline.schedules.changes import LIVE, end_for_tenant, ensure_schedule, remove_undeclared
from pipeline.schedules.overshoot import overshot
from pipeline.tables import schedules, slots, workflow_settings

log = logging.getLogger(__name__)

Fields = tuple[Any, ...]


def _unheard(bells: Sequence[Bell]) -> None:
    """Do not ring: without a broker, the jobs are left to housekeeping, which rings later."""


@dataclass(frozen=True, kw_only=True)
class _Fired:
    """The result of one due schedule, to be reported once it is committed."""

    row: Row[Fields]
    owed: Owed
    bells: tuple[Bell, ...] | None  # None: its workflow is not enabled


class SlotFirer:
    """The ledger's side of a beat."""

    def __init__(self, store: Store, workflows: Registry, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._workflows = workflows
        self._behind: Collection[tuple[str, str]] | None = None  # schedules in code still to take over; None: all
        self._monotonic = monotonic
        self._again: dict[str, float] = {}  # schedules with a fault, and when to try them again
        self._look_at = float("-inf")  # for schedules that were moved on too far
        # Every minute between these two had a tick: a slot due then was not missed, however many came before it.
        self._kept = (_NEVER, _NEVER)

    def fire_due(self, now: datetime, ring: Callable[[Sequence[Bell]], object] = _unheard) -> list[Bell]:
        """Start the jobs of every due slot that has none yet, and *ring* for each schedule at once.

        A schedule that cannot fire records why in its row, is tried again after a minute, and blocks no other. What a
        tick has no time for is due at the next one. While the installation is held nothing is fired; those slots count
        as missed and are caught up after the release. Raises an ExceptionGroup of unexpected failures after the rest.
        Raises Unavailable or CommitUnknown at once, in the group if there is one.
        """
        if self._store.read(find_hold) is not None:
            self._kept = (_NEVER, _NEVER)
            return []
        failures = Failures()
        with failures.told("schedules that could not be fired"):
            return self._fire_all(now, ring, failures)

    def _fire_all(self, now: datetime, ring: Callable[[Sequence[Bell]], object], failures: Failures) -> list[Bell]:
        end = self._monotonic() + _TICK.total_seconds()
        if self._behind is None:  # a change of the code comes with a new process
            self._follow_code(now)
        self._bring_back(now)
        since, to = self._kept
        if not timedelta() <= now - to <= ON_TIME:
            since = now
        late = ON_TIME + (now - since)
        due = select(schedules.c.id).where(LIVE, schedules.c.next_at <= now).order_by(schedules.c.next_at)
        found: list[Bell] = []
        for id in self._store.read(lambda c: list(c.execute(due).scalars())):
            if self._monotonic() >= end:
                break
            if self._again.get(id, 0.0) > self._monotonic():
                continue
            try:
                fired = self._store.write(partial(self._fire, id=id, now=now, late=late))
            except (CommitUnknown, Unavailable):
                raise  # the ledger's failure, not this schedule's
            except (BadInput, Misconfigured) as fault:
                self._set_aside(id, str(fault), now)
            except Exception as failure:  # noqa: BLE001 - raised below: one schedule's bug must not stop the others
                failures.add("schedule", id, failure)
                self._set_aside(id, f"it failed with {type(failure).__name__}: the log of beat says where", now)
            else:
                if fired is not None:
                    started = fired.bells or ()
                    ring(started)
                    found += started
                    _tell_of(fired)
        if self._behind:
            self._follow_code(now)
        self._kept = since, now
        return found

    def _bring_back(self, now: datetime) -> None:
        """Correct schedules that a clock far ahead moved on. A slot that was fired is not fired again."""
        if self._monotonic() < self._look_at:
            return
        moved: list[str] = []
        for some in in_batches(self._store.read(partial(overshot, now=now))):
            moved += self._store.write(partial(_move_each, moves=some))
        if moved:
            note = {"action": "schedule.brought_back", "schedules": len(moved), "first": moved[0]}
            log.warning("a clock far ahead had moved schedules on too far: they are brought back", extra=note)
        self._look_at = self._monotonic() + _LOOK.total_seconds()

    def _follow_code(self, now: datetime) -> None:
        """Take over the schedules in code; one with slots owed by its old line follows once they have fired."""
        faults, self._behind = self._store.write(partial(self._take_over_code, which=self._behind, now=now))
        for tenant, name, fault in faults:
            note = {"action": "schedule.faulty", "tenant": tenant, "workflow": name}
            log.error("a schedule in code cannot be kept: %s", fault, extra=note)

    def _take_over_code(
        self, connection: Connection, *, which: Collection[tuple[str, str]] | None, now: datetime
    ) -> tuple[list[tuple[str, str, str]], set[tuple[str, str]]]:
        """Keep what the code declares now, for tenants that have enabled its workflow.

        Returns those with a fault, and those that still owe slots. *which*: only these, by tenant and workflow.
        """
        if which is None:
            _end_for_gone_tenants(connection, now=now)
            undeclared = [workflow.name for workflow in self._workflows if workflow.schedule is None]
            remove_undeclared(connection, undeclared, now=now)
        settings = select(workflow_settings.c.tenant_id, workflow_settings.c.workflow).where(
            workflow_settings.c.enabled.is_(True)
        )
        declared = {workflow.name: workflow for workflow in self._workflows}
        faults: list[tuple[str, str, str]] = []
        behind: set[tuple[str, str]] = set()
        for tenant, name in connection.execute(settings).all():
            if name in declared and (which is None or (tenant, name) in which):
                try:
                    if not ensure_schedule(connection, tenant, declared[name], now=now, owed_first=True):
                        behind.add((tenant, name))
                except BadInput as fault:  # one workflow's fault must not stop the others
                    faults.append((tenant, name, str(fault)))
        return faults, behind

    def _fire(self, connection: Connection, *, id: str, now: datetime, late: timedelta) -> _Fired | None:
        row = connection.execute(
            select(schedules).where(schedules.c.id == id, LIVE, schedules.c.next_at <= now, ~IS_HELD)
        ).first()
        if row is None:
            return None  # fired, paused or removed meanwhile, or the installation is held
        later = offset(row.id, timedelta(seconds=row.jitter_seconds))
        workflow = self._workflows.get(row.workflow)
        timetable = Timetable(cron=row.cron, zone=row.zone)
        what = owed(
            timetable,
            row.next_at - later,
            until=now - later,
            late=late if row.fault is None else ON_TIME,
            catch_up=CatchUp(row.catch_up),
            at_most=row.at_most,
        )
        following = timetable.after(now - later) + later
        moved = {"next_at": following, "last_slot": what.slots[-1] if what.slots else row.last_slot, "fault": None}
        if not _move(connection, row, moved):
            return None  # another beat was first
        return _Fired(row=row, owed=what, bells=self._start(connection, row, workflow, what.slots, now))

    def _start(
        self, connection: Connection, row: Row[Fields], workflow: Workflow, due: tuple[datetime, ...], now: datetime
    ) -> tuple[Bell, ...] | None:
        """Start the jobs of these slots and return their bells; None: the workflow is not enabled."""
        config = pins.enabled(connection, row.tenant_id, workflow.name)
        if config is None:
            return None
        for slot in due:
            job = "job_" + sha256(f"{row.id}\x00{slot.isoformat()}".encode()).hexdigest()[:26]
            taken = {"schedule_id": row.id, "slot": slot, "job_id": job, "fired_at": now}
            if not insert_new(connection, slots, taken):
                continue  # a clock went back, or the schedule was removed and added again
            insert_job(
                connection,
                NewJob(
                    id=job,
                    tenant=row.tenant_id,
                    workflow=workflow,
                    event=Tick(slot=slot.isoformat(), schedule=row.name).model_dump(mode="json"),
                    config=config,
                ),
                now=now,
            )
        return bells.ring_due(connection, row.tenant_id, workflow.pattern, most=max(len(due), 1))

    def _set_aside(self, id: str, fault: str, now: datetime) -> None:
        """Record why a schedule cannot fire. It stays due, and catches up as configured once the fault is mended."""
        self._again[id] = self._monotonic() + _AGAIN.total_seconds()
        if self._store.write(partial(_say_fault, id=id, fault=fault, now=now)):
            log.error("a schedule cannot be kept: %s", fault, extra={"action": "schedule.faulty", "schedule": id})


_NEVER = datetime.min.replace(tzinfo=UTC)
_AGAIN = timedelta(minutes=1)
_LOOK = timedelta(minutes=1)
_TICK = timedelta(seconds=10)  # no schedule is fired after it, because a heartbeat follows each tick


def _end_for_gone_tenants(connection: Connection, *, now: datetime) -> None:
    """End leftover schedules of tenants deleted before deletion ended them itself."""
    for gone in connection.execute(select(tenants.c.id).where(tenants.c.deleted_at.is_not(None))).scalars().all():
        end_for_tenant(connection, gone, now=now)


def _say_fault(connection: Connection, *, id: str, fault: str, now: datetime) -> bool:
    """Store a fault. True if it was not stored yet."""
    row = connection.execute(select(schedules).where(schedules.c.id == id, LIVE, schedules.c.next_at <= now)).first()
    return row is not None and row.fault != fault and _move(connection, row, {"fault": fault})


def _move(connection: Connection, row: Row[Fields], values: Mapping[str, Any]) -> bool:
    """Compare-and-set: of all beats that read this row, one moves it on."""
    mine = (schedules.c.id == row.id) & (schedules.c.next_at == row.next_at) & LIVE
    return connection.execute(update(schedules).where(mine).values(**values)).rowcount == 1


def _move_each(connection: Connection, *, moves: Sequence[tuple[Row[Fields], datetime]]) -> list[str]:
    return [row.id for row, at in moves if _move(connection, row, {"next_at": at})]


def _tell_of(fired: _Fired) -> None:
    row, left_out = fired.row, fired.owed.left_out
    if left_out:
        metrics.SLOTS_LEFT_OUT.labels(row.catch_up).inc()
        log.warning(
            "missed slots are left out",
            extra={
                "action": "schedule.caught_up",
                "schedule": row.id,
                "catch_up": row.catch_up,
                "at_least": left_out,
                "since": row.next_at.isoformat(),
            },
        )
    if fired.bells is None:
        log.info("slot skipped: the workflow is switched off", extra={"action": "schedule.skipped", "schedule": row.id})
