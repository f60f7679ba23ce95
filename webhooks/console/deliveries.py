"""Pages of deliveries: what came in, its outcome, and what a replay would start now."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, redirect, url_for
from sqlalchemy import Connection
from werkzeug.wrappers import Response as BaseResponse

from identity.connections.registry import get_connection
from identity.errors import BadInput, Misconfigured
from pipeline.deliveries.replay import Replayed, replay
from pipeline.deliveries.weighing import Does, Weighed, weigh
from pipeline.ledger.paging import Record
from pipeline.model import DeliveryOutcome
from pipeline.views import tenant_views
from webhooks.console import lists
from webhooks.console.access import May, check, listed_tenants, seen, visitor
from webhooks.console.parts import Desk
from webhooks.cursors import cursor
from webhooks.pages import page
from webhooks.sources import SOURCES
from webhooks.stored_deliveries import reconsider

OUTCOMES = [one for one in DeliveryOutcome if one is not DeliveryOutcome.DUPLICATE]  # duplicates are not recorded
SHOWN = 20_000  # characters of a body that a page shows; the command line prints the rest


def delivery_pages(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/deliveries")
    def deliveries() -> BaseResponse:
        tenants, turn = listed_tenants(), lists.turn()
        wanted: dict[str, Any] = lists.between() | {
            "outcome": lists.chosen("outcome", OUTCOMES),
            "source": lists.chosen("source", list(SOURCES)),
        }
        alone = lists.chosen("not_taken", ["1"]) is not None
        found = desk.read(lambda c: tenant_views.deliveries_page(c, tenants, turn, not_taken=alone, **wanted))
        return page(
            "console/deliveries.html",
            found=found,
            next=cursor(found.next),
            wanted=wanted,
            alone=alone,
            outcomes=OUTCOMES,
            sources=sorted(SOURCES),
        )

    @pages.get("/deliveries/<id>")
    def delivery(id: str) -> BaseResponse:
        row, started = desk.read(lambda c: (_found(c, id), tenant_views.jobs_of_delivery(c, id)))
        weighed, why_not = _weighed(desk, row)
        fates = (*weighed.fates, *weighed.absent) if weighed else ()
        shows_body = visitor().may(May.WORK, row["tenant_id"])
        body = row.pop("body")
        return page(
            "console/delivery.html",
            delivery=row,
            started=started,
            fates=fates,
            why_not=why_not,
            wanted=[fate for fate in fates if fate.does is not Does.NOTHING],
            settles=weighed.settles if weighed else "",
            size=len(body),
            body=body.decode("utf-8", "replace")[:SHOWN] if shows_body else None,
            cut=len(body) > SHOWN,
        )

    @pages.post("/deliveries/<id>/replay")
    def replay_delivery(id: str) -> BaseResponse:
        row = desk.read(lambda c: _found(c, id))
        owner = desk.read(lambda c: get_connection(c, row["connection_id"]))
        stored, considered = reconsider(row, owner, desk.workflows)
        whose = desk.read(lambda c: weigh(c, stored, considered, installed=desk.workflows)).tenant
        if whose is not None:
            check(whose)  # its installation may belong to another tenant by now
        jobs = [desk.ids("job") for _ in considered]
        act, subject = desk.act(), visitor().person.known_by

        def write(c: Connection) -> Replayed:
            return replay(c, stored, considered, act, installed=desk.workflows, new_jobs=jobs, subject=subject)

        done = desk.write(write)
        said = "replayed" if done.jobs else "settled" if done.settled else "nothing"
        response = redirect(url_for("console.delivery", id=id, done=said), 303)
        desk.bells.ring_after(response, bells=done.bells)
        return response


def _found(c: Connection, id: str) -> Record:
    """Return the delivery with its body. Raises NotThere, NotForYou."""
    return seen(tenant_views.delivery(c, visitor().sees(), id))


def _weighed(desk: Desk, row: Record) -> tuple[Weighed | None, str]:
    """Return what a replay would do, or why that cannot be told."""
    try:
        owner = desk.read(lambda c: get_connection(c, row["connection_id"]))
        stored, considered = reconsider(row, owner, desk.workflows)
        return desk.read(lambda c: weigh(c, stored, considered, installed=desk.workflows)), ""
    except (BadInput, Misconfigured) as error:
        return None, str(error)
