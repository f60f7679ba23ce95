"""What a test may order here: an organization throws the app out, and Linear says so."""

import hashlib
import hmac
import json
import uuid
from typing import Any

import httpx
from flask import Blueprint, Response, jsonify

from deploy.sandbox.introspection import Introspection
from deploy.sandbox.journal import Clock, Journal
from deploy.sandbox.linear.model import Organization
from deploy.sandbox.surface import BadControl, json_body

ACKNOWLEDGE_SECONDS = 5  # what Linear waits


def control(
    linear: dict[str, Any],
    organizations: dict[str, Organization],
    introspection: Introspection,
    *,
    journal: Journal,
    clock: Clock,
) -> Blueprint:
    routes = Blueprint("control", __name__)
    client = httpx.Client(timeout=ACKNOWLEDGE_SECONDS)

    def send(event: str, payload: dict[str, Any]) -> int | None:
        """The status the receiver answered; 0 if it did not, None if the world names no receiver."""
        if linear["webhook_url"] is None:
            return None
        body = json.dumps(payload).encode()
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Linear-Webhook",
            "Linear-Delivery": str(uuid.uuid4()),
            "Linear-Event": event,
            "Linear-Signature": hmac.new(linear["webhook_secret"].encode(), body, hashlib.sha256).hexdigest(),
        }
        try:
            status = client.post(linear["webhook_url"], content=body, headers=headers).status_code
        except httpx.HTTPError:
            status = 0
        journal.note("delivery", {"event": event, "guid": headers["Linear-Delivery"], "status": status})
        return status

    @routes.post("/_sandbox/authorizations/revoke")
    def revoke_authorization() -> Response:
        """The organization, by id or URL key, removes the app: its grants end, and an OAuthApp webhook says so.

        `signal_only` leaves the grants alone.
        """
        body = json_body("organization")
        chosen = next(
            (row for row in organizations.values() if body["organization"] in (row.id, row.url_key)),
            None,
        )
        if chosen is None:
            raise BadControl(f"there is no organization {body['organization']}")
        ended = 0 if body.get("signal_only") else introspection.revoke("linear", organization=chosen.id)["revoked"]
        now = clock()
        payload = {
            "action": "revoked",
            "createdAt": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "oauthClientId": linear["client_id"],
            "organizationId": chosen.id,
            "type": "OAuthApp",
            "webhookId": str(uuid.uuid5(uuid.UUID(chosen.id), "webhook")),
            "webhookTimestamp": int(now.timestamp() * 1000),
        }
        return jsonify(revoked=ended, status=send("OAuthApp", payload))

    return routes
