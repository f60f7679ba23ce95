"""The overview of what needs a person now, and the queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from flask import Blueprint
from sqlalchemy import Connection
from werkzeug.wrappers import Response as BaseResponse

from pipeline.views.overview import MOST, Overview, overview
from pipeline.views.queues import Queue, late, queues, waiting
from webhooks.console.access import seen_tenant, seen_tenants
from webhooks.console.parts import Desk
from webhooks.pages import page

TENANTS = 100  # tenants at most that one page shows separately


@dataclass(frozen=True, kw_only=True)
class Part:
    """The overview of one tenant, or of all together."""

    tenant: str | None
    found: Overview
    queues: Sequence[Queue]
    waits: Mapping[str, int]
    late: tuple[int, datetime] | None  # jobs that are due but not taken, and since when


def _parts(connection: Connection, of: Sequence[str] | None, now: datetime) -> list[Part]:
    work, waits = queues(connection, of), waiting(connection, of)
    return [
        Part(
            tenant=tenant,
            found=found,
            queues=work[tenant],
            waits=waits[tenant],
            late=None if found.hold else late(work[tenant], now=now),  # during a hold no worker would take them
        )
        for tenant, found in overview(connection, of, now=now).items()
    ]


def overview_pages(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/", endpoint="overview")
    def show_overview() -> BaseResponse:
        theirs, now = seen_tenants(), desk.clock()
        of = None if theirs is None else theirs[:TENANTS]
        parts = desk.read(lambda c: _parts(c, of, now))
        return page("console/overview.html", parts=parts, most=MOST, left_out=len(theirs or ()) - len(of or ()))

    @pages.get("/queues", endpoint="queues")
    def show_queues() -> BaseResponse:
        tenant = seen_tenant()
        of = None if tenant is None else [tenant]
        work, waits = desk.read(lambda c: (queues(c, of), waiting(c, of)))
        return page("console/queues.html", queues=work[tenant], waits=waits[tenant])
