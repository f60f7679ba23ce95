"""Control endpoints for tests: an organization or a user withdraws access, and Linear sends the webhook."""

import hashlib
import hmac
import json
import uuid
from typing import Any

import httpx
from flask import Blueprint, Response, jsonify

from deploy.sandbox import clear
from deploy.sandbox.introspection import Introspection
from deploy.sandbox.journal import Clock, Journal
from deploy.sandbox.linear.model import Organization, User
from deploy.sandbox.surface import BadControl, json_body

ACKNOWLEDGE_SECONDS = 5  # Linear's time limit


def control(
    linear: dict[str, Any],
    organizations: dict[str, Organization],
    users: dict[str, User],
    introspection: Introspection,
    *,
    journal: Journal,
    clock: Clock,
) -> Blueprint:
    routes = Blueprint("control", __name__)
    client = clear.client(timeout=ACKNOWLEDGE_SECONDS)
    made: dict[str, tuple[str, bytes]] = {}  # event and body by delivery

    def tell(event: str, payload: dict[str, Any], *, hold: bool = False) -> dict[str, Any]:
        """Make a delivery, and send it unless it is held."""
        guid = str(uuid.uuid4())
        made[guid] = event, json.dumps(payload).encode()
        return {"delivery": guid, "status": None if hold else send(guid)}

    def send(guid: str) -> int | None:
        """Return the receiver's status, 0 if it did not answer, or None if the world names no receiver."""
        if linear["webhook_url"] is None:
            return None
        event, body = made[guid]
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Linear-Webhook",
            "Linear-Delivery": guid,
            "Linear-Event": event,
            "Linear-Signature": hmac.new(linear["webhook_secret"].encode(), body, hashlib.sha256).hexdigest(),
        }
        try:
            status = client.post(linear["webhook_url"], content=body, headers=headers).status_code
        except httpx.HTTPError:
            status = 0
        journal.note("delivery", {"event": event, "guid": guid, "status": status})
        return status

    def organization_of(body: dict[str, Any]) -> Organization:
        named = body["organization"]
        found = next((row for row in organizations.values() if named in (row.id, row.url_key)), None)
        if found is None:
            raise BadControl(f"there is no organization {named}")
        return found

    def told(kind: str, action: str, about: Organization, body: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Return a webhook's payload for the app, or for the client registration named by `client_id`."""
        now = clock()
        return {
            "action": action,
            "createdAt": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            **more,
            "oauthClientId": body.get("client_id", linear["client_id"]),
            "organizationId": about.id,
            "type": kind,
            "webhookId": str(uuid.uuid5(uuid.UUID(about.id), "webhook")),
            "webhookTimestamp": int(now.timestamp() * 1000),
        }

    @routes.post("/_sandbox/authorizations/revoke")
    def revoke_authorization() -> Response:
        """Remove the app from an organization (an id or URL key): end its grants, and send an OAuthApp webhook.

        `signal_only` leaves the grants alone, `hold` sends nothing yet.
        """
        body = json_body("organization")
        chosen = organization_of(body)
        ended = 0 if body.get("signal_only") else introspection.revoke("linear", organization=chosen.id)["revoked"]
        payload = told("OAuthApp", "revoked", chosen, body)
        return jsonify(revoked=ended, **tell("OAuthApp", payload, hold=body.get("hold", False)))

    @routes.post("/_sandbox/authorizations/end")
    def end_authorization() -> Response:
        """Withdraw one user's authorization, and send an OAuthAuthorization webhook that says that no token is left."""
        body = json_body("organization", "user")
        chosen = organization_of(body)
        user = next((one for one in users.values() if one.organization == chosen and one.name == body["user"]), None)
        if user is None:
            raise BadControl(f"there is no user {body['user']}")
        ended = introspection.revoke("linear", organization=chosen.id, user=user.name)["revoked"]
        client = body.get("client_id", linear["client_id"])
        payload = told(
            "OAuthAuthorization",
            "revoked",
            chosen,
            body,
            activeTokensForUser=0,
            oauthClient={"id": client, "name": "The app"},
            user={"id": user.id, "name": user.name, "email": user.email, "url": f"{linear['url']}/{user.name}"},
            userId=user.id,
        )
        return jsonify(revoked=ended, **tell("OAuthAuthorization", payload))

    @routes.post("/_sandbox/permissions")
    def change_permissions() -> Response:
        """Send the webhook for teams withdrawn from the app. Nothing else changes."""
        body = json_body("organization", "removed")
        chosen = organization_of(body)
        payload = told(
            "PermissionChange",
            "teamAccessChanged",
            chosen,
            body,
            addedTeamIds=[],
            appUserId=str(uuid.uuid5(uuid.UUID(chosen.id), "app")),
            canAccessAllPublicTeams=False,
            removedTeamIds=body["removed"],
        )
        return jsonify(tell("PermissionChange", payload))

    @routes.post("/_sandbox/deliver")
    def deliver() -> Response:
        """Send a delivery that was held, or send it again with the same bytes, as Linear's retry does."""
        guid = json_body("delivery")["delivery"]
        if guid not in made:
            raise BadControl(f"there is no delivery {guid}")
        return jsonify(delivery=guid, status=send(guid))

    return routes
