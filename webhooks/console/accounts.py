"""Pages of accounts: whether they can be used, why not, and the link by which a person reconnects."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, redirect, request, url_for
from sqlalchemy import Connection
from werkzeug.wrappers import Response as BaseResponse

from identity.accounts.grants import get_grant
from identity.errors import BadInput
from identity.model import AccountKey, AccountState, Credential
from identity.providers import PROFILES
from pipeline.accounts import facts
from pipeline.accounts.health import Health, health, healths
from pipeline.ledger.paging import Page, Record
from pipeline.views import lookup, tenant_views
from webhooks.console import lists
from webhooks.console.access import seen, seen_tenant, visitor
from webhooks.console.parts import Desk
from webhooks.cursors import cursor
from webhooks.pages import page

Told = tuple[dict[str, Any], Health]


def account_pages(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/accounts")
    def accounts() -> BaseResponse:
        tenant, turn = seen_tenant(), lists.turn()
        wanted = {
            "state": lists.chosen("state", [str(state) for state in AccountState]),
            "provider": lists.chosen("provider", list(PROFILES)),
            "usable": lists.chosen("usable", ["yes", "no"]),
            "user": lists.chosen("user"),
        }
        sought = {"state": wanted["state"], "provider": wanted["provider"], "principal": wanted["user"]}
        usable = {"yes": True, "no": False}.get(wanted["usable"] or "")

        def read(c: Connection) -> tuple[Page, list[Told]]:
            found = tenant_views.accounts_page(c, tenant, turn, usable=usable, **sought)
            return found, list(zip(found.rows, healths(c, desk.workflows, found.rows), strict=True))

        found, rows = desk.read(read)
        return page(
            "console/accounts.html",
            found=found,
            rows=rows,
            next=cursor(found.next),
            wanted=wanted,
            states=list(AccountState),
            providers=sorted(PROFILES),
        )

    @pages.get("/accounts/<id>")
    def account(id: str) -> BaseResponse:
        return page("console/account.html", **_facts(desk, id))

    @pages.route("/accounts/<id>/reconnect", methods=["GET", "POST"])
    def reconnect(id: str) -> BaseResponse:
        # the link was shown once, in response to the form: a later visitor goes to the account's page
        if request.method == "GET":
            return redirect(url_for("console.account", id=id), 303)
        facts = _facts(desk, id)
        if not facts["by_a_person"]:
            raise BadInput(f"no person consents to {id}, a service's account: {facts['account']['next'] or 'nothing'}")
        key, by = AccountKey.of(facts["account"]), visitor().person.by
        made = desk.invitations.link(key, by=by, now=desk.clock())
        return page("console/account.html", 201, link=made, **facts)


def _facts(desk: Desk, id: str) -> dict[str, Any]:
    """Return what is known of an account. Raises NotThere, NotForYou."""

    def read(c: Connection) -> dict[str, Any]:
        row = facts.whole(c, seen(tenant_views.account(c, visitor().sees(), id)))
        return {
            "account": row,
            "revoked": _revoked(c, row),
            "health": health(c, desk.workflows, row),
            "by_a_person": row["credential"] == Credential.AUTHORIZATION_CODE,
            "by_product": facts.is_by_product(c, row),
        }

    return desk.read(read)


def _revoked(c: Connection, row: Record) -> Record | None:
    """Return the revocation that ended the account's last consent, perhaps of an enclosing scope."""
    if row["state"] != AccountState.REVOKED:
        return None
    grant = get_grant(c, row["id"])
    since = 0 if grant is None else grant.consented
    return lookup.first_revocation(c, AccountKey.of(row).scopes, since=since)
