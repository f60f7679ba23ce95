"""The audit: who did what as whom, looked for by what is known of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flask import Blueprint
from werkzeug.wrappers import Response as BaseResponse

from pipeline.ledger import audit_queries
from pipeline.ledger.audit_queries import Search
from webhooks.console import lists
from webhooks.console.access import seen_tenant
from webhooks.console.parts import Desk
from webhooks.cursors import cursor, place_by_number
from webhooks.pages import page

LOOKED_FOR = ("kind", "principal", "agent", "action", "account", "job", "outcome")


def audit_pages(pages: Blueprint, desk: Desk) -> None:
    """Add the audit's one page."""

    @pages.get("/audit")
    def audit() -> BaseResponse:
        turn = lists.turn(place_by_number)
        wanted: dict[str, Any] = {name: lists.chosen(name) for name in LOOKED_FOR}
        search = replace(Search(tenant=seen_tenant()), **wanted)
        found = desk.read(lambda c: audit_queries.page(c, search, turn))
        return page(
            "console/audit.html",
            found=found,
            next=cursor(found.next),
            wanted=wanted,
        )
