"""Operations on deliveries: what came in, and which jobs followed. Bodies are not exposed."""

from __future__ import annotations

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from pipeline.agents_api.callers import Requests
from pipeline.views import tenant_views
from pipeline.views.tenant_views import Tenants
from webhooks.api.access import caller
from webhooks.api.answers import answer, answer_page
from webhooks.api.models import DeliveriesQuery, DeliveryOut, DeliveryPage, DeliveryWithJobs, OnePath
from webhooks.problems import Problem


def delivery_operations(pages: APIBlueprint, requests: Requests) -> None:
    @pages.get("/deliveries", responses={200: DeliveryPage})
    def list_deliveries(query: DeliveriesQuery) -> Response:
        """List the deliveries received for this tenant, newest first."""
        who, wanted = caller(), query.turn()
        page = requests.read(lambda c: tenant_views.deliveries_page(c, who.tenant, wanted, outcome=query.outcome))
        return answer_page(map(DeliveryOut.model_validate, page.rows), next=page.next)

    @pages.get("/deliveries/<id>", responses={200: DeliveryWithJobs})
    def show_delivery(path: OnePath) -> Response:
        """Show one delivery, with the ids of its jobs."""
        who = caller()
        row = requests.read(lambda c: tenant_views.delivery(c, Tenants.of(who.tenant), path.id))
        if row is None:
            raise Problem.not_there("such delivery", listed="deliveries")
        return answer(DeliveryWithJobs.model_validate(row))
