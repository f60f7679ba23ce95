"""The audit: who did what as whom, looked for by what is known of it."""

from __future__ import annotations

from flask import Blueprint
from werkzeug.wrappers import Response as BaseResponse

from identity.model import AccessPattern
from pipeline.ledger.audit_search import ALSO, audit_page
from webhooks.console import lists
from webhooks.console.access import seen_tenant
from webhooks.console.parts import Desk
from webhooks.cursors import cursor, place_by_number
from webhooks.pages import page


def audit_pages(pages: Blueprint, desk: Desk) -> None:
    """Add the audit's one page."""

    @pages.get("/audit")
    def audit() -> BaseResponse:
        tenant, turn, job = seen_tenant(), lists.turn(place_by_number), lists.chosen("job")
        also = {name: lists.chosen(name) for name in ALSO}
        found = desk.read(lambda c: audit_page(c, tenant, turn, job=job, also=also))
        return page(
            "console/audit.html",
            found=found,
            next=cursor(found.next),
            wanted={**also, "job": job},
            patterns=list(AccessPattern),
        )
