"""Schedules: when workflows start by themselves, and letting one rest."""

from __future__ import annotations

from flask import Blueprint, redirect, request, url_for
from sqlalchemy import Connection
from werkzeug.wrappers import Response as BaseResponse

from pipeline.desk import schedules as acts
from pipeline.ledger import queries
from pipeline.schedules import changes
from webhooks.console.access import as_not_there, check, seen_tenant
from webhooks.console.parts import Desk
from webhooks.pages import page


def schedule_pages(pages: Blueprint, desk: Desk) -> None:
    """Add the page and the acts of schedules."""

    @pages.get("/schedules")
    def schedules() -> BaseResponse:
        tenant = seen_tenant()
        return page("console/schedules.html", schedules=desk.read(lambda c: queries.all_schedules(c, tenant)))

    @pages.post("/schedules/pause")
    def pause_schedule() -> BaseResponse:
        id = _named(desk)
        act = desk.act()
        desk.write(lambda c: acts.pause(c, id, **act))
        return redirect(url_for("console.schedules", done="paused"), 303)

    @pages.post("/schedules/resume")
    def resume_schedule() -> BaseResponse:
        id = _named(desk)
        act = desk.act()
        desk.write(lambda c: acts.resume(c, id, **act))
        return redirect(url_for("console.schedules", done="resumed"), 303)


def _named(desk: Desk) -> str:
    """The schedule of the form, which may hold any sign, if the act at hand may have it. Raises BadInput, NotThere."""
    id = request.form.get("id", "")

    def look(c: Connection) -> None:
        with as_not_there():
            schedule = changes.get_schedule(c, id)
        check(schedule.tenant_id)

    desk.read(look)
    return id
