"""Pages of revocations: what was withdrawn, what that stopped, and the signed receipt."""

from __future__ import annotations

import json

from flask import Blueprint, Response, redirect, url_for
from sqlalchemy import Connection
from werkzeug.wrappers import Response as BaseResponse

from identity.accounts.states import find_account
from identity.audit.handovers import trusted_keys
from identity.errors import BadInput
from identity.model import AccountKey, ScopeKind
from identity.withdrawals.stuck_leftovers import StuckLeftover, stuck_leftovers
from pipeline.desk import revocations as acts
from pipeline.ledger.paging import Page, Record
from pipeline.revocation.receipt_content import ProviderAnswer
from pipeline.revoker.inquiry import SAYS
from pipeline.revoker.proof import disproof
from pipeline.revoker.unasked import why_not_asked
from pipeline.views import lookup, tenant_views
from webhooks.console import lists
from webhooks.console.access import May, NotThere, listed_tenants, seen, visitor
from webhooks.console.parts import Desk
from webhooks.cursors import cursor, place_of_revocation
from webhooks.pages import guarded, page

NAMED = 50  # cancelled jobs, and accounts, that a page lists; the receipt has the rest
_NOT_FOLLOWED = (ProviderAnswer.STUCK, ProviderAnswer.GIVEN_UP)  # listed first, for operators


def revocation_pages(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/revocations")
    def revocations() -> BaseResponse:
        tenants, turn = listed_tenants(), lists.turn(place_of_revocation)
        alone, wanted = lists.chosen("stuck", ["1"]) is not None, lists.between()

        def read(c: Connection) -> tuple[Page, frozenset[str], list[StuckLeftover]]:
            found = tenant_views.revocations_page(c, tenants, turn, stuck=alone, **wanted)
            # Only with the first page: leftovers are few, and not part of the paged list.
            left = stuck_leftovers(c, tenants, limit=NAMED + 1) if alone and turn.after is None else []
            return found, tenant_views.stuck_among(c, [row["id"] for row in found.rows]), left

        found, stuck, left = desk.read(read)
        return page(
            "console/revocations.html",
            found=found,
            next=cursor(found.next),
            stuck=stuck,
            left=left,
            named=NAMED,
            alone=alone,
            wanted=wanted,
        )

    @pages.get("/revocations/<id>")
    def revocation(id: str) -> BaseResponse:
        row = desk.read(lambda c: _found(c, id))
        keys = desk.read(lambda c: trusted_keys(c, desk.public_key))
        receipt = row["receipt"]
        why = desk.read(lambda c: disproof(c, keys, row)) if receipt else None
        told = receipt["provider"]["accounts"] if receipt else []
        of = desk.read(lambda c: _page_of_scope(c, row))
        return page(
            "console/revocation.html",
            revocation=row,
            of=of,
            why=why,
            doubt=SAYS.get(receipt["doubt"]) if receipt else None,
            not_asked=why_not_asked(receipt) if receipt else None,
            accounts=sorted(told, key=lambda one: one["answer"] not in _NOT_FOLLOWED),
            named=NAMED,
        )

    @pages.get("/revocations/<id>/receipt.json")
    def receipt(id: str) -> Response:
        row = desk.read(lambda c: _found(c, id))
        if row["receipt"] is None:
            raise NotThere
        text = json.dumps({"receipt": row["receipt"], "signature": row["signature"]}, indent=2)
        response = Response(text, content_type="application/json")
        response.headers["Content-Disposition"] = f'attachment; filename="{row["id"]}.json"'
        return guarded(response)

    @pages.post("/revocations/<id>/retry")
    def retry_revocation(id: str) -> BaseResponse:
        desk.read(lambda c: _found(c, id))
        act = desk.act()
        if desk.write(lambda c: acts.retry(c, id, act)) == 0:
            raise BadInput(f"nothing of {id} is stuck")
        return redirect(url_for("console.revocation", id=id, done="asked"), 303)


def _page_of_scope(c: Connection, row: Record) -> str | None:
    """Return the address of what was revoked or narrowed, if it has a page that the visitor may see."""
    match row["kind"]:
        case ScopeKind.ACCOUNT | "narrowing":
            account = find_account(c, AccountKey.parse(row["key"]))
            return None if account is None else url_for("console.account", id=account.id)
        case ScopeKind.USER:
            return url_for("console.accounts", tenant=row["tenant_id"], user=row["key"])
        case ScopeKind.CONNECTION:
            owner = lookup.tenant_of_connection(c, row["key"])
            seen = owner is not None and visitor().may(May.SEE_MORE, owner.tenant)
            return url_for("console.connection", id=row["key"]) if seen else None
        case _:
            return None


def _found(c: Connection, id: str) -> Record:
    return seen(tenant_views.revocation(c, visitor().sees(), id))
