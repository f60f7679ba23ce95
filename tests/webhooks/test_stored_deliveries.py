"""Stored deliveries are offered to workflows as this version reads them, and as on arrival."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import pytest

from identity.errors import BadInput
from identity.model import ProviderConnection
from pipeline.authoring.matching import Considered
from pipeline.authoring.registry import Registry
from webhooks.stored_deliveries import reconsider

MENTION = b'{"type":"event_callback","team_id":"T1","event_id":"Ev1","event":{"type":"app_mention"}}'
SENT = b'{"type":"unreadable","data":{}}'
REVOKED: dict[str, Any] = {"type": "event_callback", "team_id": "T1", "event_time": 1599616881}
GONE = b'{"action":"deleted","installation":{"id":7,"account":{"id":5}}}'
BUTTON = {"action_id": "aswhom.deny", "value": f"apr_0123456789abcdef:{'a' * 64}"}
PRESSED = {"type": "block_actions", "trigger_id": "1.2.c", "team": {"id": "T1"}, "user": {"id": "U7"}}


class Offered(Registry):
    """A registry that notes the events it is offered."""

    def __init__(self) -> None:
        super().__init__([])
        self.events: list[str] = []

    def consider(self, source: str, event: str, body: Mapping[str, Any]) -> list[Considered]:
        self.events.append(event)
        return super().consider(source, event, body)


def reconsidered(
    provider: str, body: bytes, event: str, *, outcome: str = "unrecognised", jobs: Sequence[str] = ()
) -> tuple[list[str], tuple[str, str]]:
    """The events that workflows are offered, and the event and id that are read of one stored as `1.aa`."""
    owner = ProviderConnection(
        id="c", tenant=None, provider=provider, client_id="", scopes=(), api_url="", authorize_url="", token_url=""
    )
    row = {"id": "d", "source": provider, "event": event, "delivery_id": "1.aa", "body": body, "outcome": outcome}
    row["jobs"] = list(jobs)
    workflows = Offered()
    stored, _ = reconsider(row, owner, workflows)
    return workflows.events, (stored.event, stored.delivery_id)


@pytest.mark.parametrize(
    ("provider", "body", "event", "id"),
    [
        ("slack", MENTION, "app_mention", "Ev1"),
        ("slack", MENTION.replace(b'"event_id":"Ev1",', b""), "app_mention", "1.aa"),
        ("standard", SENT, "unreadable", "1.aa"),
    ],
    ids=["with an id", "without one", "where a header names both"],
)
def test_the_event_and_the_id_are_read_anew_where_the_body_names_them(
    provider: str, body: bytes, event: str, id: str
) -> None:
    assert reconsidered(provider, body, "unreadable") == ([event], (event, id))


def of_slack(event: dict[str, Any]) -> bytes:
    return json.dumps({**REVOKED, "event": event}).encode()


def pressed(**more: Any) -> bytes:
    return urlencode({"payload": json.dumps({**PRESSED, "actions": [BUTTON], **more})}).encode()


@pytest.mark.parametrize(
    ("provider", "event", "body", "why"),
    [
        ("slack", "unreadable", of_slack({"type": "app_uninstalled"}), "is a signal"),
        ("slack", "app_uninstalled", of_slack({"type": "app_uninstalled"}), "is a signal"),
        ("slack", "tokens_revoked", of_slack({"type": "tokens_revoked", "tokens": 7}), "cannot be read by this"),
        ("slack", "unreadable", of_slack({"type": 7}), "cannot be read by this version"),
        ("slack", "unreadable", pressed(), "let the person answer again"),
        ("slack", "unreadable", pressed(user=7), "cannot be read by this version"),
        ("slack", "unreadable", b'{"type":"url_verification","challenge":"3eZbrw1a"}', "there is nothing to do"),
        ("github", "installation", GONE, "is a signal"),
        ("github", "installation", b'{"action":"deleted","installation":{}}', "cannot be read by this version"),
        ("linear", "OAuthApp", b'{"action":"revoked"}', "cannot be read by this version"),
    ],
)
def test_a_signal_an_answer_and_what_still_cannot_be_read_are_for_no_workflow(
    provider: str, event: str, body: bytes, why: str
) -> None:
    with pytest.raises(BadInput, match=why):
        reconsidered(provider, body, event)


@pytest.mark.parametrize("body", [GONE, b'{"action":"deleted","installation":{}}', b"{"])
def test_one_that_started_jobs_and_is_read_otherwise_now_names_them_and_tells_nobody_to_revoke(body: bytes) -> None:
    with pytest.raises(BadInput, match=r"`aswhom jobs replay job_1 job_2`$") as refused:
        reconsidered("github", body, "installation", outcome="accepted", jobs=["job_1", "job_2"])
    assert "revoke" not in str(refused.value)
    with pytest.raises(BadInput, match="by hand what it"):
        reconsidered("github", body, "installation", outcome="accepted")


def test_what_was_carried_out_on_arrival_is_no_fault_and_a_counted_answer_is_offered_to_no_workflow() -> None:
    assert reconsidered("slack", pressed(), "block_actions", outcome="accepted")[0] == []
    for followed in (GONE, b'{"action":"deleted","installation":{}}'):
        assert reconsidered("github", followed, "installation", outcome="signal")[0] == ["installation"]
