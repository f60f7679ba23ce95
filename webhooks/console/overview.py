"""What needs a person now, the queues, and the way to anything by its id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from flask import Blueprint, redirect, request, url_for
from sqlalchemy import Connection
from werkzeug.wrappers import Response as BaseResponse

from identity.errors import BadInput
from pipeline.ledger.overview import MOST, Overview, overview
from pipeline.ledger.queues import Queue, late, queues, waiting
from webhooks.console.access import seen_tenant, seen_tenants
from webhooks.console.parts import Desk
from webhooks.pages import page

#: The page of a thing, by how its id begins; an account may have that of the connect session that made it.
PAGES: Mapping[str, str] = {
    "job": "job",
    "del": "delivery",
    "rev": "revocation",
    "acc": "account",
    "con": "account",
    "apr": "approval",
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """What the overview says of one tenant, or of everything."""

    tenant: str | None
    found: Overview
    queues: Sequence[Queue]
    waits: Mapping[str, int]
    late: tuple[int, datetime] | None  # jobs that are due and nobody takes, and since when


def _part(connection: Connection, tenant: str | None, now: datetime) -> Part:
    work = queues(connection, tenant)
    return Part(
        tenant=tenant,
        found=overview(connection, tenant, now=now),
        queues=work,
        waits=waiting(connection, tenant),
        late=late(work, now=now),
    )


def overview_pages(pages: Blueprint, desk: Desk) -> None:
    """Add the overview, the queues, and `find`."""

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

    @pages.get("/find")
    def find() -> BaseResponse:
        id = request.args.get("id", "").strip()
        endpoint = PAGES.get(id.partition("_")[0].partition("-")[0])
        if endpoint is None:
            raise BadInput(
                "that is no id of a job, a delivery, an account, an approval or a revocation: "
                "these begin with job, del, acc, apr or rev"
            )
        return redirect(url_for(f"console.{endpoint}", id=id), 303)
