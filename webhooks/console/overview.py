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
    of = None if tenant is None else [tenant]
    work = queues(connection, of)[tenant]
    return Part(
        tenant=tenant,
        found=overview(connection, tenant, now=now),
        queues=work,
        waits=waiting(connection, of)[tenant],
        late=late(work, now=now),
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
        of = None if tenant is None else [tenant]
        work, waits = desk.read(lambda c: (queues(c, of), waiting(c, of)))
        return page("console/queues.html", queues=work[tenant], waits=waits[tenant])
