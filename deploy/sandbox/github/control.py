"""Control endpoints for tests and the demo: pull requests, acts of an installation's owner, and deliveries."""

from flask import Blueprint, Response, jsonify

from deploy.sandbox.github.actor_shapes import ActorShapes
from deploy.sandbox.github.app_shapes import AppShapes
from deploy.sandbox.github.control_installations import installation_orders
from deploy.sandbox.github.control_pulls import pull_orders
from deploy.sandbox.github.deliveries import Deliveries
from deploy.sandbox.github.events import Events
from deploy.sandbox.github.item_shapes import ItemShapes
from deploy.sandbox.github.store import Store
from deploy.sandbox.introspection import Introspection
from deploy.sandbox.surface import BadControl, json_body


def control(
    store: Store,
    actors: ActorShapes,
    apps: AppShapes,
    shapes: ItemShapes,
    events: Events,
    deliveries: Deliveries,
    introspection: Introspection,
) -> Blueprint:
    routes = Blueprint("control", __name__)
    pull_orders(routes, store, actors, shapes, events, deliveries)
    installation_orders(routes, store, actors, apps, deliveries, introspection)

    @routes.get("/_sandbox/deliveries/<reference>")
    def read_delivery(reference: str) -> Response:
        """Return a delivery with its payload, whether it was sent or held."""
        delivery = deliveries.find(reference)
        if delivery is None:
            raise BadControl(f"there is no delivery {reference}")
        return jsonify(delivery.whole())

    @routes.post("/_sandbox/deliver")
    def deliver() -> Response:
        reference = json_body("delivery")["delivery"]
        delivery = deliveries.find(str(reference))
        if delivery is None:
            raise BadControl(f"there is no delivery {reference}")
        return jsonify(delivery=delivery.guid, status=deliveries.send(delivery))

    @routes.get("/_sandbox/deliveries")
    def list_deliveries() -> Response:
        return jsonify(
            [delivery.row() | {"statuses": delivery.statuses, "late": delivery.late} for delivery in deliveries.all()]
        )

    return routes
