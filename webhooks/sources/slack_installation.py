"""Finds the app installation that a Slack request is for. Pure.

An event's `authorizations` name it; in a channel shared by two companies, the outer team is the author's. The outer
fields are used only without that list. An app of a whole organization (`is_enterprise_install`) is installed in the
organization, and one of its workspaces may be listed as well. For a button, the installation is the workspace of the
message, which our app posted; `team` is that of the person who pressed it.
https://docs.slack.dev/apis/events-api/#authorizations
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from webhooks.sources.stated import name

Document = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Installed:
    """An installation of the app; *workspace* is a workspace of an organization-wide installation."""

    installation: str | None
    workspace: str | None = None


def installed(document: Document) -> Installed:
    """Return the installation of any kind of request: an event, a command's form, or an interaction."""
    rows = document.get("authorizations")
    if isinstance(rows, list) and rows:
        return _authorized(rows[0] if isinstance(rows[0], dict) else {}, document)
    team, enterprise = _stated(document, "team"), _stated(document, "enterprise")
    wide = document.get("is_enterprise_install") in (True, "true")
    at = _inside(document, "view", "app_installed_team_id")
    if at is None and document.get("type") == "block_actions" and not wide:  # a shortcut's message may be anybody's
        at = _inside(document, "message", "team")
    if at is not None and at != team:  # used from another company's side of a shared channel
        return Installed(installation=at)
    return _either(team, enterprise, wide=wide)


def _inside(document: Document, what: str, key: str) -> str | None:
    inner = document.get(what)
    return name(inner.get(key)) if isinstance(inner, dict) else None


def _authorized(row: Document, document: Document) -> Installed:
    team, enterprise = name(row.get("team_id")), name(row.get("enterprise_id"))
    wide = row.get("is_enterprise_install") is True
    if wide and team is None and enterprise is not None and document.get("enterprise_id") == enterprise:
        # the author's: it is in that organization, since a stranger's would have another enterprise
        team = name(document.get("team_id"))
    return _either(team, enterprise, wide=wide)


def _either(team: str | None, enterprise: str | None, *, wide: bool) -> Installed:
    if wide and enterprise is not None:
        return Installed(installation=enterprise, workspace=team)
    return Installed(installation=team or enterprise)


def _stated(document: Document, what: str) -> str | None:
    """Return the team's or the enterprise's id: nested in interactivity payloads, a top-level field elsewhere."""
    named, team = document.get(what), document.get("team")
    if isinstance(named, dict):
        return name(named.get("id"))
    inside = team.get(f"{what}_id") if isinstance(team, dict) else None  # for a workspace of an organization
    return name(document.get(f"{what}_id")) or name(inside)
