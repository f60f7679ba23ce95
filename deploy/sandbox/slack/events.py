"""Signed Events API deliveries, and the other control endpoints for tests."""

import hashlib
import hmac
import itertools
import json
import re
import secrets
from collections.abc import Callable
from typing import Any

import httpx
from flask import Blueprint, Response, jsonify

from deploy.sandbox import clear
from deploy.sandbox.journal import Clock, Journal
from deploy.sandbox.slack.store import Store
from deploy.sandbox.surface import BadControl, json_body

ACKNOWLEDGE_SECONDS = 3  # Slack's time limit
_MARKUP = re.compile(r"(<(?:[@#!]|https?://)[^<>]*>)")


def control(slack: dict[str, Any], store: Store, *, journal: Journal, clock: Clock) -> Blueprint:
    routes = Blueprint("control", __name__)
    client = clear.client(timeout=ACKNOWLEDGE_SECONDS)
    bodies: dict[str, bytes] = {}
    numbers, run = itertools.count(1), secrets.token_hex(3).upper()

    def send(event_id: str, *, retry: dict[str, str]) -> int:
        body, moment = bodies[event_id], str(int(clock().timestamp()))
        signed = b"v0:" + moment.encode() + b":" + body
        digest = hmac.new(slack["signing_secret"].encode(), signed, hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "Slackbot 1.0 (+sandbox)",
            "X-Slack-Request-Timestamp": moment,
            "X-Slack-Signature": f"v0={digest}",
        }
        try:
            status = client.post(slack["webhook_url"], content=body, headers=headers | retry).status_code
        except httpx.HTTPError:
            status = 0  # no answer
        journal.note("delivery", {"event_id": event_id, "status": status})
        return status

    def announce(order: dict[str, Any]) -> str:
        """Create an event without sending it."""
        if order["team_id"] not in store.workspaces:
            raise BadControl(f"there is no workspace {order['team_id']}")
        event_id = f"Ev{run}{next(numbers):06d}"
        bodies[event_id] = json.dumps(_envelope(slack, store, order, event_id, int(clock().timestamp()))).encode()
        return event_id

    @routes.post("/_sandbox/events")
    def send_event() -> Response:
        """Send a new event, or resend an existing one, given its `event_id`, as Slack's retry does."""
        order = json_body()
        event_id = order.get("event_id")
        if event_id is not None:
            if event_id not in bodies:
                raise BadControl(f"there is no event {event_id}")
            retry = {"X-Slack-Retry-Num": str(order.get("retry", 1)), "X-Slack-Retry-Reason": "http_timeout"}
            return jsonify(event_id=event_id, status=send(event_id, retry=retry))
        order = json_body("team_id", "event")
        event = order["event"]
        if isinstance(event, dict) and isinstance(event.get("text"), str):
            event["text"] = _escaped(event["text"])
        event_id = announce(order)
        return jsonify(event_id=event_id, status=send(event_id, retry={}))

    @routes.get("/_sandbox/messages")
    def read_messages() -> Response:
        return jsonify(store.messages())

    def change(method: Callable[[str], None]) -> Response:
        team_id = json_body("team_id")["team_id"]
        if team_id not in store.workspaces:
            raise BadControl(f"there is no workspace {team_id}")
        method(team_id)
        return jsonify(ok=True)

    @routes.post("/_sandbox/revoke")
    def revoke() -> Response:
        """Stop a workspace's bot token from working. No event is sent."""
        return change(store.revoke_team)

    @routes.post("/_sandbox/uninstall")
    def uninstall() -> Response:
        """Uninstall the app from a workspace: its tokens stop working, and Slack sends two events, in any order.

        `users` had tokens of their own. `enterprise_id` is the organization that had the app for all its workspaces.
        `reversed` sends the uninstallation first, `hold` sends neither yet.
        """
        order = json_body("team_id")
        workspace = store.workspaces.get(order["team_id"])
        if workspace is None:
            raise BadControl(f"there is no workspace {order['team_id']}")
        store.revoke_team(workspace.team_id)
        tokens = {"oauth": order.get("users", []), "bot": [workspace.bot_user_id]}
        told: list[dict[str, Any]] = [{"type": "tokens_revoked", "tokens": tokens}, {"type": "app_uninstalled"}]
        where = {"team_id": workspace.team_id, "enterprise_id": order.get("enterprise_id")}
        made = [announce({**where, "event": event}) for event in told]
        made = made[::-1] if order.get("reversed") else made
        statuses = [] if order.get("hold") else [send(event_id, retry={}) for event_id in made]
        return jsonify(event_ids=made, statuses=statuses)

    @routes.post("/_sandbox/restore")
    def restore() -> Response:
        return change(store.restore_team)

    return routes


def _escaped(text: str) -> str:
    """Escape what a person typed as Slack does, but not its own markup for people, channels and links.

    docs.slack.dev/messaging/formatting-message-text
    """
    parts = _MARKUP.split(text)  # every other one is markup
    for place in range(0, len(parts), 2):
        parts[place] = parts[place].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(parts)


def _envelope(slack: dict[str, Any], store: Store, order: dict[str, Any], event_id: str, now: int) -> dict[str, Any]:
    team_id, enterprise_id = order["team_id"], order.get("enterprise_id")
    return {
        "token": "not-used",  # deprecated: receivers verify the signature
        "team_id": team_id,
        "enterprise_id": enterprise_id,
        "api_app_id": slack["app_id"],
        "event": order["event"],
        "type": "event_callback",
        "event_id": event_id,
        "event_time": order.get("event_time", now),
        "authorizations": [
            {
                "enterprise_id": enterprise_id,
                "team_id": team_id,
                "user_id": store.workspaces[team_id].bot_user_id,
                "is_bot": True,
                "is_enterprise_install": enterprise_id is not None,
            }
        ],
    }
