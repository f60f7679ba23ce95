"""`schedules`: times at which workflows start by themselves, per tenant."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import click
from sqlalchemy import Connection, Row

from deploy.cli.command import YES, command, confirm
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.hold import find_hold
from pipeline.authoring.timetable import LONGEST_JITTER, MOST, CatchUp, Timetable, offset
from pipeline.desk import schedules as acts
from pipeline.desk.changes import record_change
from pipeline.ledger.paging import EVERY
from pipeline.schedules import changes
from pipeline.schedules.changes import NewSchedule
from pipeline.views import operator_queries, tenant_views


@click.group()
def schedules() -> None:
    """Times at which workflows start by themselves.

    A schedule is declared in code, for every tenant that has the workflow on, or added for one tenant.
    """


@command(schedules, "list")
@click.option("--tenant", help="Only this tenant's.")
def list_schedules(at: Installation, out: Output, tenant: str | None) -> None:
    """List schedules, the next to fire first."""
    rows, held = at.read(lambda c: (tenant_views.schedules_page(c, tenant, EVERY).rows, find_hold(c)))
    columns = ("id", "workflow", "origin", "cron", "zone", "catch_up", "paused", "next_at", "last_slot", "fault")
    out.rows(rows, columns, empty="No schedule yet: `aswhom schedules add --help`, or a workflow that has one in code")
    if held and rows:
        out.note(f"It is {held.sentence}")


@command(schedules)
@click.argument("name")
@click.option("--tenant", required=True)
@click.option("--workflow", required=True, help="The workflow it starts, once per slot.")
@click.option("--cron", required=True, help="Minute, hour, day of month, month, day of week: '0 9 * * 1-5'.")
@click.option("--zone", default="UTC", show_default=True, help="The time zone of the cron line, such as Europe/Berlin.")
@click.option(
    "--catch-up",
    type=click.Choice([one.value for one in CatchUp]),
    default=CatchUp.ONCE.value,
    show_default=True,
    help="Slots that passed while no beat ran: start nothing, one job for all of them, or a job for each.",
)
@click.option(
    "--at-most",
    type=click.IntRange(1, MOST),
    default=10,
    show_default=True,
    help="With 'all': how many passed slots fire at most.",
)
@click.option(
    "--jitter",
    type=click.IntRange(0, int(LONGEST_JITTER.total_seconds())),
    default=0,
    metavar="SECONDS",
    help="Delay each slot by a fixed time of this schedule, below this many; at most a day.  [default: 0]",
)
def add(
    at: Installation,
    out: Output,
    name: str,
    tenant: str,
    workflow: str,
    cron: str,
    zone: str,
    catch_up: str,
    at_most: int,
    jitter: int,
) -> None:
    """Add schedule NAME for a tenant. It fires while the tenant has the workflow switched on."""
    wanted = NewSchedule(
        tenant=tenant,
        name=name,
        workflow=at.workflows.declared(workflow),
        timetable=Timetable(cron=cron, zone=zone),
        catch_up=CatchUp(catch_up),
        at_most=at_most,
        jitter=timedelta(seconds=jitter),
    )
    act = at.act()

    def write(c: Connection) -> tuple[datetime, bool]:
        operator_queries.living_tenant(c, tenant)
        next_at = changes.add_schedule(c, wanted, now=act.now)
        detail = {"schedule": wanted.id, "workflow": workflow, "cron": cron, "zone": zone}
        record_change(c, "schedule.added", tenant, detail, act)
        enabled = {row["workflow"] for row in operator_queries.all_workflow_settings(c, tenant) if row["enabled"]}
        return next_at, workflow in enabled

    next_at, enabled = at.write(write)
    out.done(f"{wanted.id} fires next at {_local(next_at, zone)}", {"id": wanted.id, "next_at": next_at})
    if not enabled:
        out.note(
            f"{workflow} is not switched on for {tenant}: its slots pass unused until "
            f"`aswhom workflows enable {workflow} --tenant {tenant}`"
        )


@command(schedules)
@click.argument("id")
def pause(at: Installation, out: Output, id: str) -> None:
    """Pause a schedule until it is resumed."""
    act = at.act()
    at.write(lambda c: acts.pause(c, id, act))
    out.done(f"{id} is paused; `aswhom schedules resume {id}` goes on with the slot that is next then", {"id": id})


@command(schedules)
@click.argument("id")
def resume(at: Installation, out: Output, id: str) -> None:
    """Resume a schedule with its next slot. Slots that passed during the pause are not made up."""
    act = at.act()

    def write(c: Connection) -> tuple[datetime, str]:
        next_at = acts.resume(c, id, act)
        return next_at, changes.get_schedule(c, id).zone

    next_at, zone = at.write(write)
    out.done(f"{id} fires next at {_local(next_at, zone)}", {"id": id, "next_at": next_at})


@command(schedules)
@click.argument("id")
@YES
def remove(at: Installation, out: Output, id: str, yes: bool) -> None:
    """Remove a tenant's schedule. Jobs it has started continue."""
    confirm(f"Remove {id}? It can only be added anew; to silence it for a while, pause it.", yes=yes)
    act = at.act()
    at.write(lambda c: acts.remove(c, id, act))
    out.done(f"{id} is removed", {"id": id})


@command(schedules, "next")
@click.argument("id")
@click.option("--count", type=click.IntRange(1, 100), default=5, show_default=True)
def next_slots(at: Installation, out: Output, id: str, count: int) -> None:
    """List a schedule's next slots in its time zone, daylight saving included, and the times they fire."""
    row = at.read(partial(changes.get_schedule, id=id))
    later = offset(id, timedelta(seconds=row.jitter_seconds))
    coming = [
        {"slot": _local(slot, row.zone), "fires_at": slot + later, "utc": slot}
        for slot in islice(_slots(row, after=at.now() - later), count)
    ]
    if row.paused:
        out.note(f"{id} is paused: none of these fires until `aswhom schedules resume {id}`")
    out.rows(coming, ("slot", "fires_at"), empty="none")


def _slots(row: Row[Any], *, after: datetime) -> Any:
    timetable = Timetable(cron=row.cron, zone=row.zone)
    while True:
        after = timetable.after(after)
        yield after


def _local(moment: datetime, zone: str) -> str:
    return moment.astimezone(ZoneInfo(zone)).strftime("%a %Y-%m-%d %H:%M %Z")
