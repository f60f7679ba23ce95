"""Operations on revocations: withdraw authority, effective with the response, and show receipts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from identity.accounts.named_scopes import scope_of_tenant
from identity.agents.api_keys import Caller
from identity.model import ScopeKind
from pipeline.agents_api.callers import Keyed, Requests
from pipeline.ledger.paging import Record
from pipeline.views import tenant_views
from pipeline.views.tenant_views import Tenants
from webhooks import metrics
from webhooks.api import shapes
from webhooks.api.access import caller
from webhooks.api.answers import answer, answer_page
from webhooks.api.models import (
    IdempotencyHeader,
    OnePath,
    Paged,
    RevocationOut,
    RevocationPage,
    RevocationWithReceipt,
    RevokeBody,
)
from webhooks.bells import Bells
from webhooks.cursors import place_of_revocation
from webhooks.problems import Problem


def revocation_operations(
    pages: APIBlueprint, requests: Requests, bells: Bells, *, clock: Callable[[], datetime]
) -> None:
    @pages.get("/revocations", responses={200: RevocationPage})
    def list_revocations(query: Paged) -> Response:
        """List the revocations of this tenant, newest first."""
        who, wanted = caller(), query.turn(place_of_revocation)
        page = requests.read(lambda c: tenant_views.revocations_page(c, who.tenant, wanted))
        return answer_page(map(shapes.revocation, page.rows), next=page.next)

    @pages.get("/revocations/<id>", responses={200: RevocationWithReceipt})
    def show_revocation(path: OnePath) -> Response:
        """Show one revocation, with its signed receipt once it is quiesced."""
        row = _found(requests, caller(), path.id)
        return answer(shapes.revocation_with_receipt(row))

    @pages.post("/revocations", responses={201: RevocationOut})
    def create_revocation(header: IdempotencyHeader, body: RevokeBody) -> Response:
        """Withdraw authority, or narrow an account: from this response on, no step that depends on it opens."""
        who = caller()
        kind = ScopeKind(body.kind)
        scope = requests.read(lambda c: scope_of_tenant(c, who.tenant, kind, body.key), ahead=True)
        # Omit `keeps` if unset, so that idempotency keys stay valid from before it existed.
        keyed = Keyed(key=header.idempotency_key, document={"revoke": body.model_dump(mode="json", exclude_none=True)})
        if body.keeps is None:
            made = requests.revoke(who, scope, keyed, reason=body.reason, now=clock())
        else:
            made = requests.narrow(who, scope, keyed, keeps=tuple(body.keeps), reason=body.reason, now=clock())
        if not made.repeated:
            metrics.count_effective()
        response = answer(shapes.revocation(_there(made.row)), 201)
        response.headers["Location"] = f"/v1/revocations/{made.id}"
        if not made.repeated:
            bells.ring_after(response, revocations=[made.id])
        return response


def _found(requests: Requests, who: Caller, id: str) -> Record:
    return _there(requests.read(lambda c: tenant_views.revocation(c, Tenants.of(who.tenant), id)))


def _there(row: Record | None) -> Record:
    if row is None:
        raise Problem.not_there("such revocation", listed="revocations")
    return row
