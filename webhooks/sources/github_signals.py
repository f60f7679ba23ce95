"""GitHub deliveries that change authority, read as signals. Pure.

The event name is an unsigned header, so a signal is accepted only from a body of the shape published for it.
https://docs.github.com/webhooks/webhook-events-and-payloads
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from pipeline.signal import Asks, Installation, People, Signal
from webhooks.sources.stated import name, of_iso, of_seconds

Document = Mapping[str, Any]


_OF_ANOTHER = frozenset({"alert", "repository"})


class _Misshapen(Exception):
    """The body does not have its event's published shape."""


def signal(event: str, document: Document) -> tuple[Signal | None, str]:
    """Return the delivery's signal, or why it cannot be trusted; neither for any other body."""
    action = document.get("action")
    reader = _READERS.get((event, action)) if isinstance(action, str) else None
    if reader is None:
        return None, ""
    try:
        return reader(document), ""
    except _Misshapen as why:
        return None, f"{event}.{action} {why}"


def number(thing: Any) -> str | None:
    """Return the `id` of an object if it is an integer, as GitHub's are."""
    value = thing.get("id") if isinstance(thing, dict) else None
    return name(str(value)) if type(value) is int else None  # a bool is an int as well


def _authorization_revoked(document: Document) -> Signal:
    person = number(document.get("sender"))
    # secret_scanning_alert also has the action `revoked`, but concerns an alert. Fields that GitHub may add to this
    # event must not stop it from being followed: it is never sent again.
    if person is None or not document.keys().isdisjoint(_OF_ANOTHER):
        raise _Misshapen("should have an action and a sender with an id, and be of no alert or repository")
    return Signal(
        source="github.github_app_authorization",
        asks=Asks.REVOKE,
        whom=(People(ids=frozenset({person})),),
        reason="the user revoked the app's authorization at GitHub",
    )


def _installation_deleted(document: Document) -> Signal:
    key, _ = _installed(document)
    # No time: an installation's id is never reused, so a late notice about the old one cannot match a new account.
    reason = "the app's installation was deleted at GitHub"
    return Signal(source="github.installation", asks=Asks.REVOKE, whom=(Installation(id=key),), reason=reason)


def _installation_suspended(document: Document) -> Signal:
    key, installation = _installed(document)
    at = _moment(installation.get("suspended_at"))
    if at is None:
        raise _Misshapen("should say when it was suspended")
    return Signal(
        source="github.installation",
        asks=Asks.SUSPEND,
        whom=(Installation(id=key),),
        reason="the app's installation is suspended at GitHub",
        happened_at=at,
    )


def _installation_unsuspended(document: Document) -> Signal:
    key, installation = _installed(document)
    if installation.get("suspended_at") is not None:
        raise _Misshapen("should not say that it is suspended")
    return Signal(
        source="github.installation",
        asks=Asks.RESUME,
        whom=(Installation(id=key),),
        reason="the app's installation is no longer suspended at GitHub",
        happened_at=_moment(installation.get("updated_at")),
    )


def _permissions_accepted(document: Document) -> Signal:
    key, installation = _installed(document)
    permissions = installation.get("permissions")
    if not isinstance(permissions, dict) or None in map(name, (*permissions, *permissions.values())):
        raise _Misshapen("should say what the installation may do")
    return Signal(
        source="github.installation",
        asks=Asks.RESCOPE,
        whom=(Installation(id=key),),
        reason="new permissions of the app were accepted at GitHub",
        happened_at=_moment(installation.get("updated_at")),
        scopes=scopes_of(permissions),
    )


def _repositories_removed(document: Document) -> Signal:
    key, installation = _installed(document)
    removed = document.get("repositories_removed")
    if not isinstance(removed, list):
        raise _Misshapen("should say which repositories were removed")
    return Signal(
        source="github.installation_repositories",
        asks=Asks.RENEW,
        whom=(Installation(id=key),),
        reason=f"{len(removed)} repositories were taken from the app's installation at GitHub",
        happened_at=_moment(installation.get("updated_at")),
    )


def scopes_of(permissions: Mapping[str, str]) -> frozenset[str]:
    """Return GitHub's permissions as scopes; `issues:write` implies `issues:read`."""
    lower = {"write": ("read",), "admin": ("write", "read")}
    return frozenset(
        f"{area}:{level}" for area, given in permissions.items() for level in (given, *lower.get(given, ()))
    )


_READERS: Mapping[tuple[str, str], Callable[[Document], Signal]] = {
    ("github_app_authorization", "revoked"): _authorization_revoked,
    ("installation", "deleted"): _installation_deleted,
    ("installation", "suspend"): _installation_suspended,
    ("installation", "unsuspend"): _installation_unsuspended,
    ("installation", "new_permissions_accepted"): _permissions_accepted,
    ("installation_repositories", "removed"): _repositories_removed,
}


def _installed(document: Document) -> tuple[str, Document]:
    installation = document.get("installation")
    key = number(installation)
    # Every event has an installation with an id, and many share these action names; only these include its account.
    if key is None or not isinstance(installation, dict) or "account" not in installation:
        raise _Misshapen("should have an installation with an id and an account")
    return key, installation


def _moment(value: Any) -> datetime | None:
    """Parse a time from GitHub's payloads: ISO 8601, or seconds since 1970."""
    return of_seconds(value) or of_iso(value)
