"""What the senders publish, from ASWHOM_SHARED_DATA or shared/data beside the repository; GitHub's also from npm."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from identity.secret import Secret
from tests.servers import shared_data
from tests.servers.shared_data import Example
from tests.webhooks.parts import (
    FORM,
    JSON,
    NOW,
    SECRET,
    delivery_for,
    github_headers,
    linear_headers,
    lower,
    slack_headers,
)
from webhooks.sources import SOURCES
from webhooks.sources.reading import Reading


@cache
def github() -> tuple[Example, ...]:
    """Every published GitHub payload."""
    return tuple(shared_data.github_examples())


@cache
def slack() -> tuple[Path, ...]:
    """Every published Slack request body, JSON or form."""
    found = shared_data.find()
    if found is None:
        return ()
    return tuple(path for path in sorted(found.glob("slack/payloads/*.[jf]*")) if path.name != "INDEX.json")


@cache
def linear() -> tuple[Path, ...]:
    """Every published Linear payload."""
    found = shared_data.find()
    return tuple(sorted(found.glob("linear/examples/*.json"))) if found else ()


@cache
def security_events() -> tuple[Path, ...]:
    """The claims of every published Security Event Token, unsigned."""
    found = shared_data.find()
    return tuple(path for path in sorted(found.glob("ssf/*.json")) if path.name != "INDEX.json") if found else ()


@cache
def vectors() -> dict[str, dict[str, Any]]:
    """The documented signature vector of each scheme, by provider; without the folder the test is skipped."""
    rows = json.loads(shared_data.signature_vectors().read_text(encoding="utf-8"))
    return {row["provider"]: row for row in rows}


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A payload as its sender would send it."""

    name: str
    source: str
    body: bytes
    headers: Mapping[str, str]
    content_type: str = JSON
    at: datetime = NOW

    @property
    def reading(self) -> Reading:
        return self.reader()(self.body)

    def reader(self) -> Callable[[bytes], Reading]:
        """What its source reads of a body under these headers."""
        headers, keys = lower(self.headers, content_type=self.content_type), (Secret(SECRET),)
        return lambda body: SOURCES[self.source].read(headers, body, keys, self.at)


def sent() -> Iterator[Sent]:
    """All payloads of GitHub, Slack and Linear."""
    for example in github():
        headers = github_headers(example.body, event=example.event, delivery=delivery_for(example.body))
        yield Sent(name=example.name, source="github", body=example.body, headers=headers)
    for path in slack():
        body, content_type = as_slack_sends(path)
        headers = slack_headers(body)
        yield Sent(name=path.name, source="slack", body=body, headers=headers, content_type=content_type)
    for path in linear():
        body = path.read_bytes()
        at = datetime.fromtimestamp(json.loads(body)["webhookTimestamp"] / 1000, UTC)
        headers = linear_headers(body, delivery=delivery_for(body))
        yield Sent(name=path.name, source="linear", body=body, headers=headers, at=at)


def as_slack_sends(path: Path) -> tuple[bytes, str]:
    """A published request's body and content type: interactivity comes as a form."""
    body = path.read_bytes()
    if path.suffix == ".form":
        return body, FORM
    if not path.name.startswith(("event_callback", "url_verification")):
        return urlencode({"payload": body.decode()}).encode(), FORM
    return body, JSON
