"""Control endpoints for tests, and internal endpoints for the upstream processes."""

import hmac
from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import Blueprint, Response, abort, jsonify, request

from deploy.sandbox.auth.grants import Access, Grants, Which
from deploy.sandbox.auth.presentations import Presentations
from deploy.sandbox.auth.registry import Registry
from deploy.sandbox.surface import BadControl, json_body

KEY_HEADER = "X-Sandbox-Key"


def control(registry: Registry, grants: Grants, presentations: Presentations) -> Blueprint:
    """Return the endpoints for tests."""
    routes = Blueprint("control", __name__)

    def selected() -> Which:
        body = json_body("provider")
        provider, person = body["provider"], None
        if "user" in body:
            person = registry.person(provider, str(body["user"]))
            if person is None:
                raise BadControl(f"{provider} has no user {body['user']}")
        return Which(
            provider=provider, client_id=body.get("client_id"), person=person, organization=body.get("organization")
        )

    @routes.get("/_sandbox/presentations")
    def read_presentations() -> Response:
        return jsonify(presentations.all())

    @routes.post("/_sandbox/expire")
    def expire() -> Response:
        return jsonify(expired=grants.expire(selected()))

    @routes.post("/_sandbox/revoke")
    def revoke() -> Response:
        return jsonify(revoked=grants.revoke(selected()))

    return routes


def internal(registry: Registry, grants: Grants, *, key: str) -> Blueprint:
    """Return the endpoints for the upstream processes, protected by the internal key."""
    routes = Blueprint("internal", __name__)

    def keyed(view: Callable[[], Response]) -> Callable[[], Response]:
        @wraps(view)
        def guarded() -> Response:
            if not hmac.compare_digest(request.headers.get(KEY_HEADER, "").encode(), key.encode()):
                abort(403)
            return view()

        return guarded

    @routes.post("/_sandbox/introspect")
    @keyed
    def introspect() -> Response:
        access = grants.find(json_body("token")["token"])
        if access is None:
            return jsonify(active=False, known=False)
        return jsonify(active=grants.is_live(access), known=True, **_described(registry, access))

    @routes.post("/_sandbox/kill_token")
    @keyed
    def kill_token() -> Response:
        """End the grant of one of the client's tokens."""
        body = json_body("token", "client_id")
        access = grants.find(body["token"])
        if access is None or access.grant.client.client_id != body["client_id"]:
            return jsonify(killed=False)
        return jsonify(killed=grants.kill(body["token"]), **_described(registry, access))

    @routes.post("/_sandbox/kill_credential")
    @keyed
    def kill_credential() -> Response:
        """End the grant of an access or refresh token of any client."""
        return jsonify(killed=grants.kill(json_body("token")["token"]))

    @routes.post("/_sandbox/kill_authorization")
    @keyed
    def kill_authorization() -> Response:
        """End everything the token's user granted the client."""
        body = json_body("token", "client_id")
        access = grants.find(body["token"])
        if access is None or access.grant.client.client_id != body["client_id"] or not grants.is_live(access):
            return jsonify(killed=False)
        provider, person = access.grant.client.provider, access.grant.person
        ended = grants.revoke(Which(provider=provider, client_id=body["client_id"], person=person))
        return jsonify(killed=ended > 0, **_described(registry, access))

    return routes


def _described(registry: Registry, access: Access) -> dict[str, Any]:
    grant = access.grant
    organization = grant.organization
    return {
        "provider": grant.client.provider,
        "client_id": grant.client.client_id,
        "grant": grant.id,
        "kind": "app" if grant.acts_as_app else "user",
        "user": None if grant.acts_as_app or grant.person is None else grant.person.name,
        "user_id": None if grant.acts_as_app or grant.person is None else grant.person.id,
        "tenant": registry.organizations.get(organization or "") or (grant.person.tenant if grant.person else None),
        "organization": organization,
        "scopes": list(grant.scopes),
        "expires_at": access.expires_at.isoformat(),
    }
