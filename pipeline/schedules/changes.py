"""Changes of schedules: declared in code, added for a tenant, paused, resumed, removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, select, update

from identity.errors import BadInput
from identity.principals import checked_id
from identity.sql.rows import insert_new
from pipeline.authoring.declarations import LONGEST_NAME
from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.timetable import MOST, CatchUp, Timetable, check_jitter, offset
from pipeline.events import Tick
from pipeline.tables import schedules, workflow_settings

CODE, TENANT = "code", "tenant"
LIVE = schedules.c.removed_at.is_(None) & schedules.c.paused.is_(False)
_LINE = ("cron", "zone")
_DEFINITION = ("workflow", "origin", "catch_up", "at_most", "jitter_seconds", *_LINE)


@dataclass(frozen=True, kw_only=True)
class NewSchedule:
    """A schedule as requested. Raises BadInput."""

    tenant: str
    name: str
    workflow: Workflow
    timetable: Timetable
    catch_up: CatchUp = CatchUp.ONCE
    at_most: int = 10
    jitter: timedelta = timedelta()

    def __post_init__(self) -> None:
        if not issubclass(Tick, self.workflow.event):
            raise BadInput(
                f"{self.workflow.name} is started by events and takes {self.workflow.event.__name__}: "
                "only a workflow that takes a Tick can have a schedule"
            )
        if len(checked_id(self.name)) > LONGEST_NAME:
            raise BadInput(f"a schedule's name has {LONGEST_NAME} characters at most")
        if not 1 <= self.at_most <= MOST:
            raise BadInput(f"a catch-up fires 1 to {MOST} slots")
        check_jitter(self.jitter)

    @property
    def id(self) -> str:
        return f"{self.tenant}:{self.name}"

    def row(self, *, origin: str, now: datetime) -> dict[str, Any]:
        """Return the row of a new schedule, starting with its next slot."""
        return {
            "id": self.id,
            "tenant_id": self.tenant,
            "name": self.name,
            "workflow": self.workflow.name,
            "origin": origin,
            "cron": self.timetable.cron,
            "zone": self.timetable.zone,
            "catch_up": self.catch_up,
            "at_most": self.at_most,
            "jitter_seconds": int(self.jitter.total_seconds()),
            "paused": False,
            "next_at": _next(self.id, self.timetable, self.jitter, now),
        }


def ensure_schedule(
    connection: Connection, tenant: str, workflow: Workflow, *, now: datetime, owed_first: bool = False
) -> bool:
    """Bring a workflow's own schedule up to date with the code; True if it is. A pause stays, and due slots stay due.

    *owed_first*: keep the old cron line until its overdue slots have fired, unless that line is invalid.
    """
    said = workflow.schedule
    if said is None:
        return True
    wanted = NewSchedule(
        tenant=tenant,
        name=workflow.name,
        workflow=workflow,
        timetable=Timetable(cron=said.cron, zone=said.zone),
        catch_up=said.catch_up,
        at_most=said.at_most,
        jitter=said.jitter,
    )
    values = wanted.row(origin=CODE, now=now)
    if insert_new(connection, schedules, values):
        return True
    row = connection.execute(select(schedules).where(schedules.c.id == wanted.id)).one()
    if row.removed_at is None and all(getattr(row, name) == values[name] for name in _DEFINITION):
        return True
    if row.origin == TENANT and row.removed_at is None:
        return True  # the tenant's own schedule of that name came first, and only the tenant removes it
    del values["paused"]
    behind = False
    if row.removed_at is None:
        same_line = all(getattr(row, name) == values[name] for name in _LINE)
        due = not row.paused and row.next_at <= now
        behind = owed_first and due and row.fault is None and not same_line
        if behind:
            for name in (*_LINE, "jitter_seconds", "next_at"):
                del values[name]
        elif due or same_line:  # the slot stays, and is fired when the new jitter says
            slot = row.next_at - offset(row.id, timedelta(seconds=row.jitter_seconds))
            values["next_at"] = slot + offset(row.id, wanted.jitter)
    _put(connection, wanted.id, {**values, "removed_at": None, "fault": None})
    return not behind


def remove_undeclared(connection: Connection, workflows: Sequence[str], *, now: datetime) -> None:
    """End the schedules in code of these workflows, which no longer declare any."""
    gone = schedules.c.workflow.in_(workflows) & (schedules.c.origin == CODE) & schedules.c.removed_at.is_(None)
    connection.execute(update(schedules).where(gone).values(removed_at=now))


def end_for_tenant(connection: Connection, tenant: str, *, now: datetime) -> dict[str, int]:
    """End all schedules and settings of a deleted tenant; return how many of each."""
    live = (schedules.c.tenant_id == tenant) & schedules.c.removed_at.is_(None)
    removed = connection.execute(update(schedules).where(live).values(removed_at=now)).rowcount
    off = connection.execute(delete(workflow_settings).where(workflow_settings.c.tenant_id == tenant)).rowcount
    return {"schedules": removed, "workflows": off}


def add_schedule(connection: Connection, wanted: NewSchedule, *, now: datetime) -> datetime:
    """Add a tenant's schedule; return when it first fires. Raises BadInput if there is one of that name."""
    values = wanted.row(origin=TENANT, now=now)
    next_at: datetime = values["next_at"]
    if insert_new(connection, schedules, values):
        return next_at
    removed = (schedules.c.id == wanted.id) & schedules.c.removed_at.is_not(None)
    again = update(schedules).where(removed).values(**values, removed_at=None, fault=None)
    if connection.execute(again).rowcount == 0:
        raise BadInput(f"there is a schedule {wanted.id} already: choose another name, or remove it first")
    return next_at


def get_schedule(connection: Connection, id: str) -> Row[tuple[Any, ...]]:
    """Return that schedule's row. Raises BadInput."""
    found = connection.execute(select(schedules).where(schedules.c.id == id, schedules.c.removed_at.is_(None))).first()
    if found is None:
        raise BadInput(f"there is no schedule {id}: `aswhom schedules list` shows them")
    return found


def pause_schedule(connection: Connection, id: str) -> Row[tuple[Any, ...]]:
    """Fire nothing until it is resumed. Raises BadInput."""
    row = get_schedule(connection, id)
    _put(connection, id, {"paused": True})
    return row


def resume_schedule(connection: Connection, id: str, *, now: datetime) -> datetime:
    """Resume with the next slot, without catching up on the pause; return when it fires. Raises BadInput."""
    row = get_schedule(connection, id)
    if not row.paused:
        raise BadInput(f"{id} is not paused: it fires next at {row.next_at:%Y-%m-%d %H:%M} UTC")
    jitter = timedelta(seconds=row.jitter_seconds)
    next_at = _next(id, Timetable(cron=row.cron, zone=row.zone), jitter, now)
    _put(connection, id, {"paused": False, "next_at": next_at, "fault": None})
    return next_at


def skip_missed(connection: Connection, *, now: datetime) -> list[str]:
    """Skip every missed slot: all due schedules move to their next slot. Return their ids."""
    skipped = []
    for row in connection.execute(select(schedules).where(LIVE, schedules.c.next_at <= now).order_by(schedules.c.id)):
        try:
            next_at = _next(row.id, Timetable(cron=row.cron, zone=row.zone), timedelta(seconds=row.jitter_seconds), now)
        except BadInput:
            continue  # an invalid line fires nothing
        _put(connection, row.id, {"next_at": next_at})
        skipped.append(row.id)
    return skipped


def remove_schedule(connection: Connection, id: str, *, now: datetime) -> Row[tuple[Any, ...]]:
    """End a tenant's schedule; jobs that it started go on. Raises BadInput for one that the code declares."""
    row = get_schedule(connection, id)
    if row.origin == CODE:
        raise BadInput(
            f"{id} comes with its workflow: `aswhom schedules pause {id}`, "
            f"or `aswhom workflows disable {row.workflow} --tenant {row.tenant_id}`"
        )
    _put(connection, id, {"removed_at": now})
    return row


def _next(id: str, timetable: Timetable, jitter: timedelta, now: datetime) -> datetime:
    later = offset(id, jitter)
    return timetable.after(now - later) + later


def _put(connection: Connection, id: str, values: dict[str, Any]) -> None:
    connection.execute(update(schedules).where(schedules.c.id == id).values(**values))
