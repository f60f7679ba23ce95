"""A client's endpoints for its users' tokens, authenticated by client id and secret.

An authorization that ends by such a request triggers the same event, byte for byte, as one that the user withdraws.
"""

import hmac
from typing import Any

from flask import Blueprint, Response, jsonify, request

from deploy.sandbox.fingerprint import fingerprint
from deploy.sandbox.github.actor_shapes import ActorShapes
from deploy.sandbox.github.bearer import NOT_FOUND, Refused
from deploy.sandbox.github.deliveries import Deliveries
from deploy.sandbox.github.store import Store
from deploy.sandbox.github.times import stamp
from deploy.sandbox.introspection import Introspection
from deploy.sandbox.surface import entry, touched

APPLICATION = "/applications/<client_id>"


def authorizations(
    github: dict[str, Any], store: Store, actors: ActorShapes, deliveries: Deliveries, introspection: Introspection
) -> Blueprint:
    routes = Blueprint("authorizations", __name__)

    def named_token(client_id: str) -> str:
        """Return the token in the client's request."""
        basic = request.authorization
        if client_id != github["client_id"]:
            raise Refused(*NOT_FOUND)
        if basic is None or basic.type != "basic" or basic.username != client_id or not _is_secret(basic.password):
            raise Refused(401, "Requires authentication")
        entry().token_kind, entry().actor = "app", github["app_slug"]
        body = request.get_json(silent=True)
        token = body.get("access_token") if isinstance(body, dict) else None
        if not isinstance(token, str) or not token:
            raise Refused(422, "Validation Failed")
        entry().token_fingerprint = fingerprint(token)
        return token

    def _is_secret(presented: str | None) -> bool:
        return hmac.compare_digest((presented or "").encode(), github["client_secret"].encode())

    @routes.post(f"{APPLICATION}/token")
    def check_token(client_id: str) -> Response:
        token = named_token(client_id)
        described = introspection.describe(token)
        if not described["active"] or described["client_id"] != client_id:
            raise Refused(*NOT_FOUND)
        entry().tenant = described["tenant"]
        now = stamp(store.now())
        return jsonify(
            {
                "id": 1,
                "url": f"{github['url']}/authorizations/1",
                "app": {"client_id": client_id, "name": github["app_slug"], "url": github["url"]},
                "token": token,
                "hashed_token": fingerprint(token),
                "token_last_eight": token[-8:],
                "note": None,
                "note_url": None,
                "created_at": now,
                "updated_at": now,
                "scopes": [],
                "fingerprint": None,
                "expires_at": described["expires_at"],
                "user": actors.user(store.users[described["user"]]),
            }
        )

    @routes.delete(f"{APPLICATION}/token")
    def delete_token(client_id: str) -> tuple[str, int]:
        return ended(introspection.kill_token(named_token(client_id), client_id))

    @routes.delete(f"{APPLICATION}/grant")
    def delete_grant(client_id: str) -> tuple[str, int]:
        return ended(introspection.kill_authorization(named_token(client_id), client_id))

    def ended(outcome: dict[str, Any]) -> tuple[str, int]:
        if not outcome["killed"]:
            raise Refused(422, "Validation Failed")
        entry().tenant = outcome["tenant"]
        touched(f"authorization:{outcome['user']}")
        # GitHub sends it at some later time. Here it comes before the answer, or on request, so that tests are stable.
        late = store.holds_echoes
        echo = deliveries.make_withdrawn(actors.user(store.user(outcome["user"])), late=late)
        deliveries.give([echo], hold=late)
        return "", 204

    @routes.post("/credentials/revoke")
    def revoke_credentials() -> tuple[str, int]:
        """Revoke credentials without authentication, for whoever holds them. The outcome of each is not reported."""
        if request.headers.get("authorization"):
            raise Refused(403, "Forbidden")
        match request.get_json(silent=True):
            case {"credentials": [*tokens]} if tokens and all(isinstance(token, str) for token in tokens):
                for token in tokens:
                    introspection.kill_credential(token)
                return "", 202
        raise Refused(422, "Validation Failed")

    return routes
