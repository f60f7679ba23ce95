"""Slack events that change authority, read as signals. Pure.

`tokens_revoked` and `app_uninstalled` come in any order, and a removed app gets both. They name people, bots and
workspaces, never tokens. The whole body is signed, so the event name can be trusted.
https://docs.slack.dev/reference/events/tokens_revoked · https://docs.slack.dev/reference/events/app_uninstalled
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.signal import Asks, Bots, People, Signal, Whom, Workspaces
from webhooks.sources.stated import name, names, of_seconds

Document = Mapping[str, Any]


def signal(event: str, document: Document) -> tuple[Signal | None, str]:
    """Return the event's signal, or why it cannot be followed; neither for any other event."""
    match event:
        case "app_uninstalled":
            where, within = _where(document)
            whom: tuple[Whom, ...] = (Workspaces(ids=where, within=within),)
            reason = "the app was uninstalled at Slack"
        case "team_access_revoked":  # an organization removed the app from some of its workspaces
            where = names(_inner(document).get("team_ids")) or frozenset()
            whom = (Workspaces(ids=where),)
            reason = "the app was taken from a workspace of the organization at Slack"
        case "tokens_revoked":
            where, within = _where(document)
            tokens = _inner(document).get("tokens")
            people, bots = (names(tokens.get(kind, [])) if isinstance(tokens, dict) else None for kind in _KINDS)
            if people is None or bots is None or not people | bots:
                return None, "tokens_revoked should name the users or bots whose tokens were revoked"
            whom = (People(ids=people, workspaces=where, within=within),) if people else ()
            whom += (Bots(workspaces=where, ids=bots, within=within),) if bots else ()
            reason = "its tokens were revoked at Slack"
        case _:
            return None, ""
    if not where:
        return None, f"{event} should say in which workspace or organization"
    happened_at = of_seconds(document.get("event_time"))
    if happened_at is None:
        return None, f"{event} should say when"
    return Signal(source=f"slack.{event}", asks=Asks.REVOKE, whom=whom, reason=reason, happened_at=happened_at), ""


_KINDS = ("oauth", "bot")


def _inner(document: Document) -> Document:
    inner = document.get("event")
    return inner if isinstance(inner, dict) else {}


def _where(document: Document) -> tuple[frozenset[str], str | None]:
    """Return the workspace; for an organization-wide installation, the organization as well.

    The published examples of these events do not tell which applies: then also return the organization it may have
    been.
    """
    team, enterprise = name(document.get("team_id")), name(document.get("enterprise_id"))
    if team is None or enterprise is None:
        return frozenset({one for one in (team, enterprise) if one}), None
    rows = document.get("authorizations")
    said = [row.get("is_enterprise_install") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    said.append(document.get("is_enterprise_install"))
    if True in said:
        return frozenset({team, enterprise}), None
    return frozenset({team}), None if False in said else enterprise
