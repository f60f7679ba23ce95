"""Finds the page for an id: one of ours, a sender's delivery id, or a user's."""

from __future__ import annotations

from flask import Blueprint, redirect, request, url_for
from sqlalchemy import Connection
from werkzeug.wrappers import Response as BaseResponse

from identity.principals import get_principal
from pipeline.views import lookup
from webhooks.console import access
from webhooks.console.access import May, visitor
from webhooks.console.links import is_ours, page_of
from webhooks.console.parts import Desk
from webhooks.pages import page

_AROUND = " \t\r\n\"'`“”‘’«»<>()[],;."  # characters that are copied along with an id


def find_pages(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/find")
    def find() -> BaseResponse:
        wanted = request.args.get("id", "").strip(_AROUND)[:300]
        where = desk.read(lambda c: _where(c, wanted)) if wanted else None
        if where is None:
            return page("console/nothing_found.html", 404, wanted=wanted)
        return redirect(where, 303)


def _where(c: Connection, wanted: str) -> str | None:
    """Return the address of what *wanted* names, if visible. Ids with a page of their own need no lookup."""
    id = wanted.lower()
    endpoint = page_of(id)
    if endpoint is not None and is_ours(id):
        return url_for(f"console.{endpoint}", id=id)
    if id.startswith(("step_", "att_")):
        step = lookup.step_of_attempt(c, id) or id
        job = lookup.job_of_step(c, step)
        if job is None:
            return None
        return _seen(May.SEE_WORK, job.tenant, url_for("console.job", id=job.id, _anchor=step))
    if (owner := lookup.tenant_of_connection(c, wanted)) is not None:
        return _seen(May.SEE_MORE, owner.tenant, url_for("console.connection", id=wanted))
    if (person := get_principal(c, wanted)) is not None:
        accounts = url_for("console.accounts", tenant=person.tenant, user=person.id)
        return _seen(access.NEEDS["accounts"], person.tenant, accounts)
    for delivery in lookup.deliveries_of_sender(c, wanted):
        if visitor().may(May.SEE_MORE, delivery.tenant):
            return url_for("console.delivery", id=delivery.id)
    return None if endpoint is None else url_for(f"console.{endpoint}", id=id)  # an id that was chosen by its creator


def _seen(need: May, tenant: str | None, where: str) -> str | None:
    """Return *where* if the visitor may see what is *tenant*'s, otherwise None, as for what does not exist."""
    return where if visitor().may(need, tenant) else None
