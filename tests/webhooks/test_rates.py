"""More deliveries than are taken in a minute wait; strangers use up nothing, and signals always come in."""

from __future__ import annotations

import json
import logging
from typing import Any
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient
from prometheus_client import REGISTRY
from werkzeug.test import TestResponse

from tests.webhooks.parts import (
    FORM,
    JSON,
    NOW,
    MemoryLedger,
    MemoryRing,
    Secrets,
    github_headers,
    registry,
    slack_headers,
)
from webhooks.app import create_app
from webhooks.once_a_minute import OnceAMinute
from webhooks.settings import WebSettings

REVOKED = b'{"action":"revoked","sender":{"id":1}}'


def opened(installation: int = 42) -> bytes:
    return b'{"action":"opened","issue":{"number":7},"installation":{"id":%d}}' % installation


def client(ledger: MemoryLedger, *, connection: int | None = None, tenant: int = 100) -> FlaskClient:
    settings = WebSettings(base_url="https://aswhom.example", webhook_rate=connection, webhook_tenant_rate=tenant)
    return create_app(settings, ledger, registry(), MemoryRing(), clock=lambda: NOW).test_client()


def post(
    client: FlaskClient, delivery: str, body: bytes | None = None, *, through: str = "gh", event: str = "issues"
) -> TestResponse:
    body = opened() if body is None else body
    headers = github_headers(body, delivery=delivery, event=event)
    return client.post(f"/webhooks/github/{through}", data=body, headers=headers, content_type=JSON)


@pytest.fixture
def two(ledger: MemoryLedger) -> MemoryLedger:
    """Connections `gh` and `gh-2`, both of the platform, and `own` of tenant acme."""
    ledger.connections |= {"gh-2": Secrets(provider="github"), "own": Secrets(provider="github", tenant="acme")}
    return ledger


def test_what_is_beyond_a_connections_rate_is_told_when_to_come_again_and_is_not_stored(two: MemoryLedger) -> None:
    web = client(two, connection=2)
    before = REGISTRY.get_sample_value("aswhom_webhooks_total", {"source": "github", "outcome": "too-many-requests"})
    answers = [post(web, f"d-{number}", opened(number)) for number in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert answers[-1].json is not None
    assert answers[-1].json["type"] == "urn:aswhom:problem:too-many-requests"
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert [delivery.delivery_id for delivery in two.deliveries] == ["d-0", "d-1"]
    counted = REGISTRY.get_sample_value("aswhom_webhooks_total", {"source": "github", "outcome": "too-many-requests"})
    assert counted == (before or 0) + 1
    assert post(web, "d-4", through="gh-2").status_code == 202


def test_a_tenants_rate_counts_all_its_connections_and_nobody_elses(two: MemoryLedger) -> None:
    two.connections["own-2"] = Secrets(provider="github", tenant="acme")
    web = client(two, tenant=1)
    assert post(web, "d-1", through="own").status_code == 202
    assert post(web, "d-2", through="own-2").status_code == 429
    assert [post(web, f"d-{number}", opened(number)).status_code for number in (3, 3, 4)] == [202, 429, 202]


def test_a_tenants_own_rate_replaces_the_settings(two: MemoryLedger) -> None:
    two.rates = {"tenant-of-1": 3, "tenant-of-2": 1}
    web = client(two, tenant=2)
    sent = {one: [post(web, f"d-{one}-{n}", opened(one)[:-1] + b',"n":%d}' % n) for n in range(4)] for one in (1, 2, 3)}
    taken = {one: [answer.status_code for answer in answers].count(202) for one, answers in sent.items()}
    assert taken == {1: 3, 2: 1, 3: 2}
    assert sent[1][-1].json is not None
    assert sent[1][-1].json["detail"].startswith("This tenant takes 3 deliveries a minute.")


def test_what_a_noisy_tenant_may_not_send_uses_up_nothing_of_those_who_share_its_connection(two: MemoryLedger) -> None:
    web = client(two, connection=3, tenant=2)
    noisy = [post(web, f"d-{number}", opened(42)[:-1] + b',"n":%d}' % number) for number in range(6)]
    assert [answer.status_code for answer in noisy] == [202, 202, 429, 429, 429, 429]
    assert post(web, "d-quiet", opened(43)).status_code == 202


@pytest.mark.parametrize("connection", [5, None])
def test_strangers_who_install_a_public_app_use_up_nothing_of_those_who_share_it(
    two: MemoryLedger, connection: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """They are answered as ever: an app is turned off whose deliveries fail. Beyond their own rate none stays."""
    two.nobodys = {"666"}
    caplog.set_level(logging.WARNING, logger="webhooks.receiver")
    web = client(two, connection=connection, tenant=3)
    before = REGISTRY.get_sample_value("aswhom_webhooks_total", {"source": "github", "outcome": "dropped"}) or 0
    answers = [post(web, f"d-{n}", opened(666)[:-1] + b',"n":%d}' % n) for n in range(12)]
    assert [answer.status_code for answer in answers] == [202] * 12
    assert [answer.json["outcome"] for answer in answers if answer.json][3:] == ["dropped"] * 9
    assert len(two.deliveries) == 3
    counted = REGISTRY.get_sample_value("aswhom_webhooks_total", {"source": "github", "outcome": "dropped"})
    assert counted == before + 9
    floods = {(one.action, one.connection, one.installation) for one in map(_said, caplog.records)}
    assert floods == {("delivery.dropped", "gh", "666")}
    assert post(web, "d-acme", opened(42)).status_code == 202
    assert two.deliveries[-1].delivery_id == "d-acme"


def _said(record: logging.LogRecord) -> Any:
    return record


def test_who_floods_is_said_once_a_minute_for_each_and_not_without_end() -> None:
    times = [0.0]
    told = OnceAMinute(monotonic=lambda: times[0])
    assert [told.is_due(("gh", installation)) for installation in ("1", "2", "1", "1")] == [True, True, False, False]
    times[0] += 60
    assert told.is_due(("gh", "1"))
    assert sum(told.is_due(("gh", str(number))) for number in range(1000)) == 99


def test_the_log_says_which_tenant_or_connection_is_over_its_rate(
    two: MemoryLedger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="webhooks.quota")
    web = client(two, connection=3, tenant=2)
    for installation in (1, 2):
        for number in range(4):
            post(web, f"d-{installation}-{number}", opened(installation)[:-1] + b',"n":%d}' % number)
    said = [(one.action, one.connection, one.tenant, one.limit) for one in map(_said, caplog.records)]
    assert said == [
        ("delivery.limited", "gh", "tenant-of-1", 2),
        ("delivery.limited", "gh", None, 3),
        ("delivery.limited", "gh", "tenant-of-2", 2),
    ]


def test_a_stranger_at_slack_is_told_the_same_of_a_command_that_is_not_stored(two: MemoryLedger) -> None:
    two.nobodys = {"T666"}
    web = client(two, tenant=1)
    answers = []
    for number in range(2):
        body = f"command=%2Faswhom&text=hi&team_id=T666&user_id=U1&trigger_id=1.1.{number}".encode()
        answers.append(web.post("/webhooks/slack/sl", data=body, headers=slack_headers(body), content_type=FORM))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[1].json is not None
    assert "not set up here" in answers[1].json["text"]
    assert len(two.deliveries) == 1


def test_what_comes_through_a_tenants_own_connection_is_never_dropped(two: MemoryLedger) -> None:
    """It may be of an installation that is not listed yet, or one in a channel that two companies share may press."""
    two.connections["sl-acme"] = Secrets(provider="slack", tenant="acme")
    two.nobodys = {"T666"}
    web = client(two, tenant=1)

    def press(number: int, action: str) -> TestResponse:
        button = {"type": "button", "action_id": action, "value": f"apr_0123456789abcdef:{'a' * 64}"}
        who = {"team": {"id": "T666"}, "user": {"id": "U7"}}
        said = {"type": "block_actions", "trigger_id": f"1.2.{number}", **who, "actions": [button]}
        body = urlencode({"payload": json.dumps(said)}).encode()
        return web.post("/webhooks/slack/sl-acme", data=body, headers=slack_headers(body), content_type=FORM)

    assert [press(number, "vote").status_code for number in range(2)] == [200, 429]
    assert press(3, "aswhom.deny").status_code == 429
    assert len(two.deliveries) == 1


def test_a_stranger_uses_up_nothing(two: MemoryLedger) -> None:
    web = client(two, connection=1)
    for _ in range(5):
        headers = github_headers(b"forged")
        assert web.post("/webhooks/github/gh", data=opened(), headers=headers, content_type=JSON).status_code == 401
    assert post(web, "d-1").status_code == 202


def test_a_signal_comes_in_whatever_was_sent_before(two: MemoryLedger) -> None:
    web = client(two, connection=1, tenant=1)
    assert [post(web, f"d-{number}").status_code for number in range(2)] == [202, 429]
    for delivery in ("d-8", "d-9"):  # they name no installation, and are not dropped as a stranger's would be
        answer = post(web, delivery, REVOKED, event="github_app_authorization")
        assert answer.json is not None
        assert (answer.status_code, answer.json["outcome"]) == (202, "signal")
