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
        found = desk.read(lambda c: queries.all_schedules(c, tenant))
        # The tenant whose schedules are shown, whether or not the address names it.
        return page("console/schedules.html", schedules=found, tenant=tenant or "", acted=request.args.get("id"))

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
    """To the list from which the form was sent, which names the schedule."""
    return redirect(url_for("console.schedules", tenant=request.args.get("tenant"), id=id, done=done), 303)


def _named(desk: Desk) -> str:
    """The schedule of the form, which may hold any sign, if the act at hand may have it. Raises BadInput, NotThere."""
    id = request.form.get("id", "")

    def look(c: Connection) -> None:
        with as_not_there():
            schedule = changes.get_schedule(c, id)
        check(schedule.tenant_id)

    desk.read(look)
    return id
