"""The rest of the app: health, metrics, and nothing that helps a stranger."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client import REGISTRY

from identity.errors import Unavailable
from pipeline.authoring.registry import Registry
from pipeline.model import Acceptance, DeliveryOutcome
from tests.webhooks.parts import JSON, MemoryLedger, MemoryRing, github_headers, registry
from webhooks import metrics, problems
from webhooks.app import create_app
from webhooks.health import health
from webhooks.settings import WebSettings
from webhooks.sources import SOURCES

BODY = b'{"action":"closed","issue":{"number":7}}'


def counted(source: str, outcome: str) -> float:
    return REGISTRY.get_sample_value("aswhom_webhooks_total", {"source": source, "outcome": outcome}) or 0


def test_the_process_is_up_and_ready(client: FlaskClient) -> None:
    assert (client.get("/healthz").status_code, client.get("/readyz").status_code) == (200, 200)


def test_the_process_is_up_and_not_ready_when_the_ledger_is_away(client: FlaskClient, ledger: MemoryLedger) -> None:
    ledger.away = Unavailable("disk full")
    assert (client.get("/healthz").status_code, client.get("/readyz").status_code) == (200, 503)
    assert "disk full" not in client.get("/readyz").text


def test_why_it_is_not_ready_is_logged_when_that_changes_and_each_minute(
    ledger: MemoryLedger, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked ten times a second, and the log may lie on the disk that is full."""
    now = [0.0]
    app = Flask("web")
    problems.install(app)
    app.register_blueprint(health(ledger, Registry(()), monotonic=lambda: now[0]))
    client = app.test_client()
    for at, fault in ((0.0, "disk full"), (30.0, "disk full"), (31.5, "no answer"), (92.0, "no answer")):
        now[0], ledger.away = at, Unavailable(fault)
        assert {client.get("/readyz").status_code for _ in range(10)} == {503}
    now[0], ledger.away = 95.0, None
    assert {client.get("/readyz").status_code for _ in range(10)} == {200}
    for at in range(98, 150, 4):  # it flaps, and is silent about the same reason until the minute is over
        now[0], ledger.away = at, Unavailable("no answer")
        assert client.get("/readyz").status_code == 503
        now[0], ledger.away = at + 2, None
        assert client.get("/readyz").status_code == 200
    now[0], ledger.away = 153.0, Unavailable("no answer")
    assert client.get("/readyz").status_code == 503
    assert [line.getMessage() for line in caplog.records] == [
        "not ready: disk full",
        "not ready: no answer",
        "not ready: no answer",
        "ready again",
        "not ready: no answer",
    ]


def test_who_asks_whether_it_is_ready_is_answered_from_a_look_of_a_second_ago_at_most(ledger: MemoryLedger) -> None:
    now = [0.0]
    app = Flask("web")
    problems.install(app)
    app.register_blueprint(health(ledger, Registry(()), monotonic=lambda: now[0]))

    def answered() -> int:
        return app.test_client().get("/readyz").status_code

    assert answered() == 200
    ledger.away = Unavailable("disk full")
    now[0] = 0.9
    assert answered() == 200
    now[0] = 1.0
    assert answered() == 503
    ledger.away = None
    now[0] = 1.9
    assert answered() == 503, "a failure is kept as long: it costs the ledger most"
    now[0] = 2.0
    assert answered() == 200


def test_who_is_ready_says_by_which_key_it_signs(ledger: MemoryLedger) -> None:
    app = create_app(WebSettings(base_url="http://localhost"), ledger, registry(), MemoryRing(), signing_key="kid")
    assert app.test_client().get("/readyz").get_json() == {"status": "ready", "signing_key": "kid"}


@pytest.mark.parametrize(
    ("base_url", "said"), [("https://aswhom.example", "max-age=31536000"), ("http://localhost", None)]
)
def test_a_browser_that_came_over_tls_comes_so_from_then_on(
    ledger: MemoryLedger, base_url: str, said: str | None
) -> None:
    client = create_app(WebSettings(base_url=base_url), ledger, registry(), MemoryRing()).test_client()
    answers = (client.get("/readyz"), client.get("/nowhere"), client.post("/webhooks/github/gh"))
    assert {answer.headers.get("Strict-Transport-Security") for answer in answers} == {said}


def test_on_a_ledger_in_which_it_would_not_count_nothing_is_taken_and_pages_are_shown(
    client: FlaskClient, ledger: MemoryLedger
) -> None:
    headers = {**github_headers(BODY), "Content-Type": "application/json"}
    ledger.unfit = Unavailable("the ledger's numbers are behind")
    refused = client.post("/webhooks/github/gh", data=BODY, headers=headers)
    assert (refused.status_code, ledger.accepted) == (503, [])
    assert int(refused.headers["Retry-After"]) > 0
    assert client.get("/healthz").status_code == 200
    ledger.unfit = None
    assert client.post("/webhooks/github/gh", data=BODY, headers=headers).status_code == 202


def test_a_workflow_that_is_on_and_not_installed_is_told_of_every_hour_and_the_web_is_ready(
    ledger: MemoryLedger, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    app = Flask("web")
    app.register_blueprint(health(ledger, Registry(()), monotonic=lambda: now[0]))
    ledger.lacking = ("triage",)
    for now[0], told in ((0.0, 1), (3599.0, 1), (3600.0, 2)):
        assert app.test_client().get("/readyz").status_code == 200
        said = [record.getMessage() for record in caplog.records if record.name == "webhooks.health"]
        assert len(said) == told
    assert said[0].startswith("triage is on and not installed here, so deliveries that want it are ignored")


@pytest.mark.parametrize(
    ("source", "label", "connection", "headers", "outcome"),
    [
        ("github", "github", "gh", github_headers(BODY), "ignored"),
        ("github", "github", "gh", github_headers(b""), "signature-refused"),
        ("github", "github", "none", github_headers(BODY), "unknown-connection"),
        ("nonsense-1", "unknown", "gh", github_headers(BODY), "unknown-connection"),
    ],
)
def test_every_answer_is_counted_once(
    client: FlaskClient, source: str, label: str, connection: str, headers: dict[str, str], outcome: str
) -> None:
    before = counted(label, outcome)
    client.post(f"/webhooks/{source}/{connection}", data=BODY, headers=headers, content_type=JSON)
    assert counted(label, outcome) == before + 1


def test_an_address_with_a_nul_is_refused_before_anything_is_looked_up(
    client: FlaskClient, ledger: MemoryLedger
) -> None:
    ledger.away = Unavailable("disk full")
    assert client.get("/readyz?user=%00").status_code == 400
    for connection, status in (("gh", 503), ("%00", 404)):
        sent = client.post(f"/webhooks/github/{connection}", data=BODY, headers=github_headers(BODY), content_type=JSON)
        assert sent.status_code == status


def test_labels_come_from_closed_sets(client: FlaskClient) -> None:
    client.post("/webhooks/canary-source/canary-connection", data=BODY, content_type=JSON)
    client.get("/canary-path")
    assert "canary" not in client.get("/metrics").text
    with pytest.raises(ValueError, match="not an outcome"):
        metrics.count("github", "surprise")


def test_refusals_that_an_alert_waits_for_are_exposed_before_the_first(client: FlaskClient) -> None:
    """Prometheus sees no increase from nothing to one."""
    page = client.get("/metrics").text
    for source in SOURCES:
        for outcome in ("malformed", "signature-refused"):
            assert f'aswhom_webhooks_total{{outcome="{outcome}",source="{source}"}}' in page


def test_metrics_have_a_port_of_their_own_where_one_is_set(ledger: MemoryLedger) -> None:
    client = create_app(
        WebSettings(base_url="https://aswhom.example", metrics_port=9110), ledger, registry(), MemoryRing()
    ).test_client()
    headers = github_headers(BODY)
    for port, there in ((8080, False), (9110, True)):
        at = f"http://localhost:{port}"
        assert client.get("/healthz", base_url=at).status_code == 200
        assert client.get("/metrics", base_url=at).status_code == (200 if there else 404)
        assert client.get("/readyz", base_url=at).status_code == (404 if there else 200)
        assert client.get("/nowhere", base_url=at).status_code == 404
        sent = client.post("/webhooks/github/gh", base_url=at, data=BODY, headers=headers, content_type=JSON)
        assert sent.status_code == (404 if there else 202)
    said = {"Host": "localhost:9110"}  # where it came in counts, not what a client says
    assert client.get("/metrics", base_url="http://localhost:8080", headers=said).status_code == 404


def test_requests_are_timed_by_route(client: FlaskClient) -> None:
    client.get("/healthz")
    page = client.get("/metrics")
    assert page.content_type.startswith("text/plain")
    assert 'aswhom_http_request_seconds_count{route="/healthz"}' in page.text


def test_requests_are_counted_by_route_method_and_status(client: FlaskClient) -> None:
    client.get("/readyz")
    client.open("/healthz", method="CANARY")
    page = client.get("/metrics").text
    assert 'aswhom_http_requests_total{method="GET",route="/readyz",status="200"}' in page
    assert 'aswhom_http_requests_total{method="other",route="none",status="405"}' in page
    assert "CANARY" not in page


def test_our_own_probes_are_no_strangers_requests_where_a_full_web_turns_them_away() -> None:
    def turned_away(route: str) -> float:
        labels = {"route": route, "method": "GET", "status": "503"}
        return REGISTRY.get_sample_value("aswhom_http_requests_total", labels) or 0

    routes = ("/readyz", "/metrics", "none")
    before = [turned_away(route) for route in routes]
    for asked in (b"GET /readyz HTTP/1.1", b"GET /metrics HTTP/1.1", b"GET /made-up HTTP/1.1"):
        metrics.count_unseen(asked, 503)
    assert [turned_away(route) for route in routes] == [one + 1 for one in before]


def test_a_signal_is_timed_from_its_arrival_to_its_commit(client: FlaskClient, ledger: MemoryLedger) -> None:
    def timed() -> float:
        return REGISTRY.get_sample_value("aswhom_revocation_effective_seconds_count") or 0

    before, body = timed(), b'{"action":"revoked","sender":{"id":1}}'
    headers = github_headers(body, event="github_app_authorization")
    for outcome in (
        DeliveryOutcome.SIGNAL,
        DeliveryOutcome.DUPLICATE,
    ):  # the second time it reaches whom the first one left
        ledger.answer = Acceptance(delivery="dlv-1", outcome=outcome, reason="", revocations=(f"rev-{outcome}",))
        client.post("/webhooks/github/gh", data=body, headers=headers, content_type=JSON)
    assert timed() == before + 1


def test_several_processes_add_up(tmp_path: Path) -> None:
    """The client library decides at import, so each process is a real one."""
    count = "from webhooks import metrics; metrics.count('github', 'accepted')"
    for _ in range(2):
        environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": "."}
        subprocess.run([sys.executable, "-c", count], check=True, env=environment, cwd=Path(__file__).parents[2])
    settings = WebSettings(base_url="https://x", metrics_dir=tmp_path)
    page = create_app(settings, MemoryLedger(), registry(), MemoryRing()).test_client().get("/metrics").text
    assert 'aswhom_webhooks_total{outcome="accepted",source="github"} 2.0' in page
    (started,) = re.findall(r"^process_start_time_seconds (\S+)$", page, re.MULTILINE)
    assert float(started) > (REGISTRY.get_sample_value("process_start_time_seconds") or 0)  # both began after this one


def test_no_environment_turns_a_debugger_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    ledger = MemoryLedger(bug=RuntimeError("canary"))
    app = create_app(WebSettings(base_url="https://x"), ledger, registry(), MemoryRing())
    assert app.debug is False
    answer = app.test_client().post("/webhooks/github/gh", data=BODY, headers=github_headers(BODY), content_type=JSON)
    assert answer.status_code == 500
    assert json.loads(answer.data)["type"] == "urn:aswhom:problem:failed"
    assert "canary" not in answer.text
    assert "Traceback" not in answer.text
