"""Linear webhooks that change authority, read as signals. Pure.

The shapes are those of Linear's GraphQL schema: OAuthAppWebhookPayload, OAuthAuthorizationWebhookPayload,
AppUserTeamAccessChangedWebhookPayload. The whole body is signed.
https://linear.app/developers/webhooks
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pipeline.signal import Asks, People, Signal, Workspaces
from webhooks.sources.stated import name, of_iso

Document = Mapping[str, Any]


def signal(event: str, document: Document) -> tuple[Signal | None, str]:
    """Return the delivery's signal, or why it cannot be followed; neither for any other body."""
    action = document.get("action")
    if event not in ("OAuthApp", "OAuthAuthorization", "PermissionChange"):
        return None, ""
    client, organization = name(document.get("oauthClientId")), name(document.get("organizationId"))
    if client is None or organization is None:
        return None, f"{event} should name an oauthClientId and an organizationId"
    happened_at = of_iso(document.get("createdAt"))
    if happened_at is None:
        return None, f"{event} should say when"
    match event, action:
        case "OAuthApp", "revoked":
            asks, whom = Asks.REVOKE, Workspaces(ids=frozenset({organization}))
            reason = "the app was removed from the workspace at Linear"
        case "OAuthAuthorization", _:
            user, alive = name(document.get("userId")), document.get("activeTokensForUser")
            if user is None or isinstance(alive, bool) or not isinstance(alive, int | float):
                return None, "OAuthAuthorization should name a userId and how many tokens are active"
            if alive > 0:  # one of several tokens ended, or a new one was made
                return None, ""
            return Signal(
                source="linear.OAuthAuthorization",
                asks=Asks.REVOKE,
                whom=(People(ids=frozenset({user})),),
                reason="no token of the user is active at Linear any more",
                happened_at=happened_at,
                precision=_PRECISION,
                client=client,
            ), ""
        case "PermissionChange", "teamAccessChanged":
            gone = document.get("removedTeamIds")
            if not isinstance(gone, list):
                return None, "PermissionChange should name the teams that were taken"
            # Linear's tokens are not bound to teams: Linear itself refuses requests for what the app may no longer see.
            asks, whom = Asks.NOTE, Workspaces(ids=frozenset({organization}))
            reason = f"the app's access to teams was changed at Linear: {len(gone)} taken"
        case _:
            return None, ""
    return Signal(
        source=f"linear.{event}",
        asks=asks,
        whom=(whom,),
        reason=reason,
        happened_at=happened_at,
        precision=_PRECISION,
        client=client,
    ), ""


_PRECISION = timedelta(milliseconds=1)
