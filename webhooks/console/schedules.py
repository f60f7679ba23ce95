"""Pages of schedules: when workflows start by themselves, and pausing one."""

from __future__ import annotations

from flask import Blueprint, redirect, request, url_for
from sqlalchemy import Connection
from werkzeug.wrappers import Response as BaseResponse

from pipeline.desk import schedules as acts
from pipeline.ledger.paging import Page, Record
from pipeline.schedules import changes
from pipeline.views import tenant_views
from webhooks.console import lists
from webhooks.console.access import as_not_there, check, seen_tenant
from webhooks.console.parts import Desk
from webhooks.cursors import cursor
from webhooks.pages import page


def schedule_pages(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/schedules")
    def schedules() -> BaseResponse:
        tenant, turn, acted = seen_tenant(), lists.turn(), request.args.get("id", "")

        def read(c: Connection) -> tuple[Page, Record | None]:
            return tenant_views.schedules_page(c, tenant, turn), tenant_views.schedule(c, tenant, acted)

        found, done_to = desk.read(read)
        return page(
            "console/schedules.html",
            found=found,
            next=cursor(found.next),
            tenant=tenant or "",  # the tenant whose schedules are shown, whether or not the address names it
            after=request.args.get("after"),
            acted=done_to,
        )

    @pages.post("/schedules/pause")
    def pause_schedule() -> BaseResponse:
        id = _named(desk)
        act = desk.act()
        desk.write(lambda c: acts.pause(c, id, act))
        return _back(id, "paused")

    @pages.post("/schedules/resume")
    def resume_schedule() -> BaseResponse:
        id = _named(desk)
        act = desk.act()
        desk.write(lambda c: acts.resume(c, id, act))
        return _back(id, "resumed")


def _back(id: str, done: str) -> BaseResponse:
    """Redirect to the list page that the form was sent from, naming the schedule."""
    tenant, after = request.args.get("tenant"), request.args.get("after")
    return redirect(url_for("console.schedules", tenant=tenant, after=after, id=id, done=done), 303)


def _named(desk: Desk) -> str:
    """Return the schedule in the form (ids may hold any character), if allowed. Raises BadInput, NotThere."""
    id = request.form.get("id", "")

    def look(c: Connection) -> None:
        with as_not_there():
            schedule = changes.get_schedule(c, id)
        check(schedule.tenant_id)

    desk.read(look)
    return id
