"""Schedules in the ledger: a slot is a row, so however many beats run, it fires once."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from zoneinfo import ZoneInfo

import structlog
from cronsim import CronSim
from sqlalchemy import Connection, Row, select, update

from identity.rows import insert_new
from identity.store import Store
from pipeline.ledger import bells
from pipeline.ledger.deliveries import enabled_config, insert_job
from pipeline.model import Bell
from pipeline.tables import schedules, slots
from pipeline.workflow import Registry, Tick, Workflow

log = structlog.get_logger(__name__)


def next_slot(cron: str, zone: str, after: datetime) -> datetime:
    """The first time after *after* that the cron line names in that zone."""
    local: datetime = next(CronSim(cron, after.astimezone(ZoneInfo(zone))))
    return local.astimezone(UTC)


def ensure_schedule(connection: Connection, tenant: str, workflow: Workflow, *, now: datetime) -> None:
    """The row of a scheduled workflow that is switched on for a tenant."""
    if workflow.schedule is None:
        return
    insert_new(
        connection,
        schedules,
        {
            "id": f"{tenant}:{workflow.name}",
            "tenant_id": tenant,
            "workflow": workflow.name,
            "cron": workflow.schedule.cron,
            "zone": workflow.schedule.zone,
            "paused": False,
            "next_at": next_slot(workflow.schedule.cron, workflow.schedule.zone, now),
        },
    )


class Schedules:
    """The ledger's side of a beat."""

    def __init__(self, store: Store, workflows: Registry) -> None:
        self._store = store
        self._workflows = workflows

    def fire_due(self, now: datetime) -> list[Bell]:
        """Start a job for every due slot that has none yet. After a pause only the slot that is due fires, once."""
        due = select(schedules).where(schedules.c.next_at <= now, schedules.c.paused.is_(False))
        if self._store.read(lambda c: c.execute(due.limit(1)).first()) is None:
            return []  # most ticks: no turn of the ledger is spent on them

        def fire(c: Connection) -> list[Bell]:
            return [bell for row in c.execute(due).all() for bell in self._fire(c, row, now)]

        return self._store.write(fire)

    def _fire(self, connection: Connection, row: Row[tuple[object, ...]], now: datetime) -> list[Bell]:
        job = "job_" + sha256(f"{row.id}\x00{row.next_at.isoformat()}".encode()).hexdigest()[:26]
        slot = {"schedule_id": row.id, "slot": row.next_at, "job_id": job, "fired_at": now}
        if not insert_new(connection, slots, slot):
            return []  # another beat was first, and moves next_at
        connection.execute(
            update(schedules).where(schedules.c.id == row.id).values(next_at=next_slot(row.cron, row.zone, now))
        )
        workflow = self._workflows.get(row.workflow)
        config = enabled_config(connection, row.tenant_id, workflow)
        if config is None:
            log.info("slot skipped: the workflow is switched off", action="schedule.skipped", schedule=row.id)
            return []
        insert_job(
            connection,
            id=job,
            tenant=row.tenant_id,
            workflow=workflow,
            user=None,
            triggered_by=None,
            event=Tick(slot=row.next_at.isoformat()).model_dump(mode="json"),
            config=config,
            delivery=None,
            source_connection=None,
            now=now,
        )
        return bells.ring_due(connection, row.tenant_id, str(workflow.pattern), share=bells.FIRST_SHARE)
