"""Requests to GitHub for an App's webhook deliveries and for redelivering one. Pure.

https://docs.github.com/en/rest/apps/webhooks
https://docs.github.com/en/webhooks/using-webhooks/handling-failed-webhook-deliveries
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from pydantic import AwareDatetime, BaseModel, TypeAdapter, ValidationError

from identity.http.client import Answer, HttpRequest
from identity.model import ProviderConnection
from identity.oauth.assertions import app_assertion
from identity.secret import Secret

PATH = "/app/hook/deliveries"
# Events that take authority away or give it back, as read by `webhooks.sources.github_signals`.
SIGNALS = frozenset(
    {
        ("github_app_authorization", "revoked"),
        ("installation", "deleted"),
        ("installation", "suspend"),
        ("installation", "unsuspend"),
        ("installation", "new_permissions_accepted"),
        ("installation_repositories", "removed"),
    }
)
# docs.github.com, "Redelivering webhooks": for Enterprise Cloud, and for Enterprise Server, whose API is under this
# path.
_KEPT, _KEPT_BY_SERVER, _SERVER = timedelta(days=3), timedelta(days=7), "/api/v3"
_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="next"')


def kept_for(owner: ProviderConnection) -> timedelta:
    """Return how long GitHub can redeliver."""
    return _KEPT_BY_SERVER if urlsplit(owner.api_url).path.rstrip("/") == _SERVER else _KEPT


class Row(BaseModel):
    """One try of a delivery, as GitHub lists it."""

    id: int
    guid: str
    delivered_at: AwareDatetime
    status_code: int
    event: str = ""
    action: str | None = None

    @property
    def is_signal(self) -> bool:
        """True if the event is about authority; following it twice has no further effect."""
        return (self.event, self.action) in SIGNALS

    @property
    def arrived(self) -> bool:
        """True if we took it. GitHub records only answers: without one the status is 0, or its own 502 or 504."""
        return 200 <= self.status_code < 300

    @property
    def is_too_large(self) -> bool:
        """True if we, or a proxy before us, refused it for its length; another try would end the same way."""
        return self.status_code == 413


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some rows, newest first, and the query for the next page."""

    rows: tuple[Row, ...]
    next_query: str | None


class UnreadableList(Exception):
    """The answer is not the list that GitHub publishes."""


_ROWS = TypeAdapter(list[Row])


def list_request(owner: ProviderConnection, key: Secret, *, query: str, now: datetime) -> HttpRequest:
    """Return the request for a page of the App's deliveries, chosen by *query*. Raises Misconfigured."""
    return _request(owner, key, "GET", f"{PATH}?{query}", now)


def redeliver_request(owner: ProviderConnection, key: Secret, row: int, *, now: datetime) -> HttpRequest:
    """Return the request to redeliver, by the id of any try of the delivery. Raises Misconfigured."""
    return _request(owner, key, "POST", f"{PATH}/{row}/attempts", now)


def read_page(answer: Answer) -> Page:
    """Return the rows of an answer with status 200. Raises UnreadableList."""
    try:
        rows = _ROWS.validate_python(json.loads(answer.body))
    except (ValueError, ValidationError):
        raise UnreadableList("GitHub's list of deliveries is not of the published shape") from None
    following = _NEXT.search(answer.headers.get("link", ""))
    # Only its query: the App's key is sent where the connection says, never where an answer says.
    return Page(rows=tuple(rows), next_query=urlsplit(following[1]).query if following else None)


def _request(owner: ProviderConnection, key: Secret, method: str, path: str, now: datetime) -> HttpRequest:
    headers = {
        "authorization": f"Bearer {app_assertion(owner, key, now=now)}",
        "accept": "application/vnd.github+json",
        "x-github-api-version": "2022-11-28",
    }
    return HttpRequest(method=method, url=owner.api_url.rstrip("/") + path, headers=headers)
