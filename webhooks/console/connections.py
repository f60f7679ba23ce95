"""Pages of provider connections: registrations, which secrets they have (never the values), and their use."""

from __future__ import annotations

from flask import Blueprint, redirect, url_for
from sqlalchemy import Connection
from werkzeug.wrappers import Response as BaseResponse

from identity.errors import BadInput
from pipeline.desk import connections as acts
from pipeline.ledger.paging import Record
from pipeline.views import connection_facts, tenant_views
from webhooks.console import lists
from webhooks.console.access import listed_tenants, seen
from webhooks.console.parts import Desk
from webhooks.cursors import cursor
from webhooks.pages import page
from webhooks.sources import SOURCES


def connection_pages(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/connections")
    def connections() -> BaseResponse:
        tenants, turn = listed_tenants(), lists.turn()
        found = desk.read(lambda c: tenant_views.connections_page(c, tenants, turn))
        return page("console/connections.html", found=found, next=cursor(found.next))

    @pages.get("/connections/<id>")
    def connection(id: str) -> BaseResponse:
        row = desk.read(lambda c: _found(c, id))
        return page("console/connection.html", connection=row, receives=row["provider"] in SOURCES)

    @pages.post("/connections/<id>/resume", endpoint="resume_connection")
    def resume(id: str) -> BaseResponse:
        desk.read(lambda c: _found(c, id))
        act = desk.act()
        desk.write(lambda c: acts.resume(c, id, act))
        return redirect(url_for("console.connection", id=id, done="resumed"), 303)


def _found(c: Connection, id: str) -> Record:
    """Return one connection, with its live secrets but not their values. Raises NotThere, NotForYou."""
    try:
        row: Record | None = connection_facts.whole(c, id)
    except BadInput:
        row = None
    return seen(row)
