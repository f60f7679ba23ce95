"""What senders post to a running system, signed as they sign it."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlencode

import httpx

from tests.system.rig import System
from tests.webhooks.parts import FORM, slack_headers


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
