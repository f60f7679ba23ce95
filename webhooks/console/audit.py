"""Search of the audit: who did what as whom."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flask import Blueprint, url_for
from werkzeug.wrappers import Response as BaseResponse

from pipeline.ledger.paging import Record
from pipeline.views import audit_queries
from pipeline.views.audit_queries import Search
from webhooks.console import lists
from webhooks.console.access import May, seen_tenant, visitor
from webhooks.console.parts import Desk
from webhooks.cursors import cursor, place_by_number
from webhooks.pages import page

#: Subjects that a record's detail may hold, by the names that its writers use.
ABOUT = ("connection", "schedule", "revocation", "delivery", "approval", "workflow", "scope", "agent", "who", "key")
LOOKED_FOR = ("kind", "principal", "agent", "action", "account", "job", "outcome")


def audit_pages(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/audit")
    def audit() -> BaseResponse:
        turn = lists.turn(place_by_number)
        wanted: dict[str, Any] = {name: lists.chosen(name) for name in LOOKED_FOR} | lists.between()
        search = replace(Search(tenant=seen_tenant()), **wanted)
        found = desk.read(lambda c: audit_queries.page(c, search, turn))
        return page(
            "console/audit.html",
            found=found,
            next=cursor(found.next),
            wanted=wanted,
            about=about,
        )


def about(record: Record) -> list[tuple[str, str, str | None]]:
    """Return what a record was about: kind and id of each thing, and its address if the id does not imply it."""
    call = "step" if record["attempt_id"] is None else "attempt"  # whose id starts with its step's
    own = (("job", record["job_id"]), ("account", record["account_id"]), (call, record[f"{call}_id"]))
    told = [(name, record["detail"].get(name)) for name in ABOUT]
    return [(what, id, _address(what, id)) for what, id in (*own, *told) if isinstance(id, str)]


def _address(what: str, id: str) -> str | None:
    match what:
        case "attempt" | "step":
            return url_for("console.find", id=id)
        # only platform roles can see the platform's connections
        case "connection" if visitor().may(May.SEE_MORE, None):
            return url_for("console.connection", id=id)
        case "schedule":
            return url_for("console.schedules", tenant=id.partition(":")[0])
        case _:
            return None
