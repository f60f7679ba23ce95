"""What needs a person now, and the queues."""

from __future__ import annotations

from flask import Blueprint
from werkzeug.wrappers import Response as BaseResponse

from pipeline.ledger.overview import MOST, overview
from pipeline.ledger.queues import queues, waiting
from webhooks.console.access import seen_tenant
from webhooks.console.parts import Desk
from webhooks.pages import page


def overview_pages(pages: Blueprint, desk: Desk) -> None:
    """Add the overview and the queues."""

    @pages.get("/", endpoint="overview")
    def show_overview() -> BaseResponse:
        tenant, now = seen_tenant(), desk.clock()
        found, work, waits = desk.read(lambda c: (overview(c, tenant, now=now), queues(c, tenant), waiting(c, tenant)))
        return page("console/overview.html", found=found, queues=work, waits=waits, most=MOST)

    @pages.get("/queues", endpoint="queues")
    def show_queues() -> BaseResponse:
        tenant = seen_tenant()
        work, waits = desk.read(lambda c: (queues(c, tenant), waiting(c, tenant)))
        return page("console/queues.html", queues=work, waits=waits)
