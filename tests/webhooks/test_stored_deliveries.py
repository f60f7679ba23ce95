"""Stored deliveries are offered to workflows by the event they have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from identity.model import ProviderConnection
from pipeline.authoring.matching import Considered
from pipeline.authoring.registry import Registry
from webhooks.stored_deliveries import reconsider

MENTION = b'{"type":"event_callback","team_id":"T1","event":{"type":"app_mention"}}'


class Offered(Registry):
    """A registry that notes the events it is offered."""

    def __init__(self) -> None:
        super().__init__([])
        self.events: list[str] = []

    def consider(self, source: str, event: str, body: Mapping[str, Any]) -> list[Considered]:
        self.events.append(event)
        return super().consider(source, event, body)


@pytest.mark.parametrize(
    ("provider", "body", "stored", "offered"),
    [
        ("slack", MENTION, "unreadable", "app_mention"),
        ("slack", MENTION, "message", "message"),
        ("standard", b'{"type":"unreadable","data":{}}', "unreadable", "unreadable"),
    ],
)
def test_the_event_is_read_anew_only_where_the_source_could_not_read_it(
    provider: str, body: bytes, stored: str, offered: str
) -> None:
    owner = ProviderConnection(
        id="c", tenant=None, provider=provider, client_id="", scopes=(), api_url="", authorize_url="", token_url=""
    )
    row = {"id": "d", "source": provider, "event": stored, "body": body, "outcome": "unrecognised"}
    workflows = Offered()
    reconsider(row, owner, workflows)
    assert workflows.events == [offered]
