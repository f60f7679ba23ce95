"""How an App asks GitHub for its webhook deliveries, and for one of them again. Pure.

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
# What takes authority away, or gives it back, as `webhooks.sources.github_signals` reads it.
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
# docs.github.com, "Redelivering webhooks": of Enterprise Cloud and of Enterprise Server, whose API is below this path.
_KEPT, _KEPT_BY_SERVER, _SERVER = timedelta(days=3), timedelta(days=7), "/api/v3"
_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="next"')


def kept_for(owner: ProviderConnection) -> timedelta:
    """How long GitHub delivers again."""
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
        """Whether it is about authority: followed twice it is followed once."""
        return (self.event, self.action) in SIGNALS

    @property
    def arrived(self) -> bool:
        """Whether we took it. GitHub says it of an answer alone: none is 0, or its own 502 or 504."""
        return 200 <= self.status_code < 300

    @property
    def is_too_large(self) -> bool:
        """Whether we, or what stands before us, take nothing so long: the next try ends alike."""
        return self.status_code == 413


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some rows, the newest first, and how to ask for the next ones."""

    rows: tuple[Row, ...]
    next_query: str | None


class UnreadableList(Exception):
    """The answer is not the list that GitHub publishes."""


_ROWS = TypeAdapter(list[Row])


def list_request(owner: ProviderConnection, key: Secret, *, query: str, now: datetime) -> HttpRequest:
    """A page of the App's deliveries; *query* chooses it. Raises Misconfigured."""
    return _request(owner, key, "GET", f"{PATH}?{query}", now)


def redeliver_request(owner: ProviderConnection, key: Secret, row: int, *, now: datetime) -> HttpRequest:
    """Ask for a delivery again, by the id of any try of it. Raises Misconfigured."""
    return _request(owner, key, "POST", f"{PATH}/{row}/attempts", now)


def read_page(answer: Answer) -> Page:
    """The rows of an answer with 200. Raises UnreadableList."""
    try:
        rows = _ROWS.validate_python(json.loads(answer.body))
    except (ValueError, ValidationError):
        raise UnreadableList("GitHub's list of deliveries is not of the published shape") from None
    following = _NEXT.search(answer.headers.get("link", ""))
    # Its query alone: where the App's key is sent is the connection's to say, not an answer's.
    return Page(rows=tuple(rows), next_query=urlsplit(following[1]).query if following else None)


def _request(owner: ProviderConnection, key: Secret, method: str, path: str, now: datetime) -> HttpRequest:
    headers = {
        "authorization": f"Bearer {app_assertion(owner, key, now=now)}",
        "accept": "application/vnd.github+json",
        "x-github-api-version": "2022-11-28",
    }
    return HttpRequest(method=method, url=owner.api_url.rstrip("/") + path, headers=headers)
