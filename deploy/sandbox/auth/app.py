"""Assembly of the authorization server."""

from typing import Any

from flask import Flask, Response, request

from deploy.sandbox.auth.consent import consent_page
from deploy.sandbox.auth.control import control, internal
from deploy.sandbox.auth.grants import Grants
from deploy.sandbox.auth.presentations import Presentations
from deploy.sandbox.auth.providers import PROVIDERS
from deploy.sandbox.auth.registry import Registry
from deploy.sandbox.auth.token import token_endpoint, unprocessed
from deploy.sandbox.fingerprint import fingerprint
from deploy.sandbox.journal import Clock, Journal
from deploy.sandbox.surface import entry, equip, touched


def create_auth(world: dict[str, Any], *, journal: Journal, clock: Clock) -> Flask:
    app = Flask(__name__)
    registry = Registry.of_world(world)
    grants = Grants(clock=clock)
    presentations = Presentations(journal, clock=clock)

    equip(
        app,
        journal=journal,
        names=lambda: {request.path.split("/")[1]},  # the provider, to which a fault may be limited
        unprocessed=lambda: unprocessed(presentations),
    )
    for provider in PROVIDERS.values():
        app.register_blueprint(consent_page(provider, registry, grants))
        app.register_blueprint(token_endpoint(provider, registry, grants, presentations))
    app.register_blueprint(control(registry, grants, presentations))
    app.register_blueprint(internal(registry, grants, key=world["auth"]["internal_key"]))

    @app.post("/linear/oauth/revoke")
    @app.post("/salesforce/services/oauth2/revoke")
    def revoke() -> tuple[str, int] | Response:
        """Linear's and Salesforce's revocation: 200 if a token was ended, 400 if there was none to end."""
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        token = next((request.form[name] for name in _REVOKE_FIELDS if name in request.form), bearer)
        entry().token_fingerprint = fingerprint(token)
        access = grants.find(token)
        if not grants.kill(token):
            return Response('{"error":"invalid_token"}', 400, content_type="application/json")
        touched(access.grant.id if access else "refresh token")
        return "", 200

    return app


# `token` is RFC 7009's; the other two are in Linear's description of the endpoint.
_REVOKE_FIELDS = ("token", "access_token", "refresh_token")
