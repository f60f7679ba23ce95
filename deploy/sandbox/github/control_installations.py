"""Control endpoints about authority: withdrawn authorizations and changed installations, each with its webhook."""

from flask import Blueprint, Response, jsonify

from deploy.sandbox.github.actor_shapes import ActorShapes
from deploy.sandbox.github.app_shapes import AppShapes
from deploy.sandbox.github.deliveries import Deliveries
from deploy.sandbox.github.installing import changed
from deploy.sandbox.github.store import Store
from deploy.sandbox.introspection import Introspection
from deploy.sandbox.surface import BadControl, json_body


def installation_orders(
    routes: Blueprint,
    store: Store,
    actors: ActorShapes,
    apps: AppShapes,
    deliveries: Deliveries,
    introspection: Introspection,
) -> None:
    """Add the endpoints to *routes*."""

    @routes.post("/_sandbox/authorizations/revoke")
    def revoke_authorization() -> Response:
        """Withdraw a user's authorization, as in their settings. `signal_only` simulates a replay: no grant ends."""
        body = json_body("user")
        user = store.users.get(body["user"])
        if user is None:
            raise BadControl(f"there is no user {body['user']}")
        ended = 0 if body.get("signal_only") else introspection.revoke("github", user=user.login)["revoked"]
        made = deliveries.make_withdrawn(actors.user(user))
        return jsonify(**deliveries.give([made], hold=body.get("hold", False)), revoked=ended)

    @routes.post("/_sandbox/authorizations/echoes")
    def hold_echoes() -> Response:
        """Set whether events caused by the client's own requests are held until `deliver` is called."""
        store.holds_echoes = bool(json_body("hold")["hold"])
        return jsonify(hold=store.holds_echoes)

    @routes.post("/_sandbox/installations/<int:number>/<action>")
    def change_installation(number: int, action: str) -> Response:
        """Change an installation as its owner would, with its webhook. `expire_tokens` sends none."""
        body = json_body()
        with store.lock:
            installation = store.installations.get(number)
            if installation is None or installation.deleted is not (action == "reinstall"):
                raise BadControl(f"there is no installation {number} that could {action}")
            if action == "expire_tokens":
                for held in store.tokens_of(installation):
                    held.expires_at = min(held.expires_at, store.now())
                return jsonify(ok=True)
            event, payload = changed(store, actors, apps, installation, action, body)
            made = deliveries.make(event, payload)
        return jsonify(
            **deliveries.give([made], hold=body.get("hold", False)), installation=payload["installation"]["id"]
        )
