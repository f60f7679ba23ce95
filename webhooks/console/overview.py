"""What needs a person now, and the queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from flask import Blueprint
from sqlalchemy import Connection
from werkzeug.wrappers import Response as BaseResponse

from pipeline.ledger.overview import MOST, Overview, overview
from pipeline.ledger.queues import Queue, late, queues, waiting
from webhooks.console.access import seen_tenant, seen_tenants
from webhooks.console.parts import Desk
from webhooks.pages import page


@dataclass(frozen=True, kw_only=True)
class Part:
    """What the overview says of one tenant, or of everything."""

    tenant: str | None
    found: Overview
    queues: Sequence[Queue]
    waits: Mapping[str, int]
    late: tuple[int, datetime] | None  # jobs that are due and nobody takes, and since when


def _part(connection: Connection, tenant: str | None, now: datetime) -> Part:
    work, found = queues(connection, tenant), overview(connection, tenant, now=now)
    return Part(
        tenant=tenant,
        found=found,
        queues=work,
        waits=waiting(connection, tenant),
        late=None if found.hold else late(work, now=now),  # no worker that is started would take them
    )


def overview_pages(pages: Blueprint, desk: Desk) -> None:
    """Add the overview and the queues."""

    @pages.get("/", endpoint="overview")
    def show_overview() -> BaseResponse:
        tenants, now = seen_tenants(), desk.clock()
        parts = desk.read(lambda c: [_part(c, tenant, now) for tenant in tenants])
        return page("console/overview.html", parts=parts, most=MOST)

    @pages.get("/queues", endpoint="queues")
    def show_queues() -> BaseResponse:
        tenant = seen_tenant()
        work, waits = desk.read(lambda c: (queues(c, tenant), waiting(c, tenant)))
        return page("console/queues.html", queues=work, waits=waits)
