"""What senders post to a running system, signed as they sign it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import httpx
from standardwebhooks import Webhook

from deploy.demo.provision import standard_of
from tests.system.rig import AGAIN, System
from tests.webhooks.parts import FORM, slack_headers


def event_until_taken(system: System, team: str, event: Mapping[str, Any]) -> None:
    """An event of Slack's, which Slack sends again while it fails."""
    sent = system.order("slack", "events", team_id=team, event=event)

    def taken() -> bool:
        if sent["status"] in AGAIN:
            sent.update(system.order("slack", "events", event_id=sent["event_id"]))
        return sent["status"] not in AGAIN

    system.wait(taken, "that Slack's event is taken")
    assert sent["status"] == 202, sent


def deliver(system: System, service: str, path: str, **which: str) -> None:
    """A delivery that its sender held, sent until it is taken."""
    statuses: list[int] = []

    def taken() -> bool:
        statuses.append(system.order(service, path, **which)["status"])
        return statuses[-1] not in AGAIN

    system.wait(taken, f"that the delivery of {service} is taken")
    assert statuses[-1] == 202, statuses


def slash_command(system: System, tenant: str, text: str, *, trigger: str, user: str = "U7") -> httpx.Response:
    """`/aswhom` as somebody types it in a tenant's workspace."""
    slack = system.world["slack"]
    (workspace,) = (one for one in slack["workspaces"] if one["name"] == tenant)
    form = {
        "command": "/aswhom",
        "text": text,
        "team_id": workspace["team_id"],
        "channel_id": workspace["channels"][0]["id"],
        "user_id": user,
        "trigger_id": trigger,
    }
    body = urlencode(form).encode()
    headers = slack_headers(body, secret=slack["signing_secret"], at=datetime.now(UTC))
    return system.http.post(slack["webhook_url"], content=body, headers={**headers, "Content-Type": FORM})


def deal_changed(
    system: System, tenant: str, organization: str, opportunity: Mapping[str, Any], **more: Any
) -> httpx.Response:
    """A tenant's own system reports that a deal was won, signed by the reference library of Standard Webhooks."""
    (own,) = (one for one in system.world["standard"] if one["tenant"] == tenant)
    id, now = f"msg_{secrets.token_hex(8)}", datetime.now(UTC)
    deal = {
        "organization": organization,
        "opportunity": opportunity["id"],
        "owner": opportunity["owner"],
        "stage": "won",
        **more,
    }
    body = json.dumps({"type": "deal.changed", "timestamp": now.isoformat(), "data": deal})
    headers = {
        "Content-Type": "application/json",
        "webhook-id": id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(own["secret"]).sign(id, now, body),
    }
    return system.http.post(f"{system.web}/webhooks/standard/{standard_of(tenant)}", content=body, headers=headers)
