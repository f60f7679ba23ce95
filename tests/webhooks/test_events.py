"""`POST /events/<transmitter>`: RFC 8935's answers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from io import BytesIO

import pytest
from flask.testing import FlaskClient
from prometheus_client import REGISTRY
from werkzeug.test import TestResponse

from identity.errors import Unavailable
from identity.oauth.jose import Key, Signed
from identity.transmitters import Transmitter
from pipeline.model import Acceptance, DeliveryOutcome, SecurityEvent
from tests.webhooks.events import KEY, OTHER, RISC, TRANSMITTER, claims, public, sign
from tests.webhooks.parts import NOW, MemoryLedger, MemoryRing, registry
from webhooks.app import create_app
from webhooks.settings import WebSettings

CHUNKED = {"wsgi.input_terminated": True}  # a body that does not say how long it is
SET = "application/secevent+jwt"


@dataclass
class MemoryEvents:
    """The web's events without a database."""

    away: Unavailable | None = None
    keyless: Unavailable | None = None
    accepted: dict[str, SecurityEvent] = field(default_factory=dict)
    removed: bool = False  # once it was found

    def transmitter(self, transmitter: str) -> Transmitter | None:
        return TRANSMITTER if transmitter == "idp" else None

    def key(self, transmitter: Transmitter, token: Signed) -> Key | None:
        if self.keyless:
            raise self.keyless
        return public(KEY) if token.kid == "k1" else None

    def accept(self, event: SecurityEvent, transmitter: Transmitter) -> Acceptance | None:
        if self.away:
            raise self.away
        if self.removed:
            return None
        if event.jti in self.accepted:
            return Acceptance(delivery=event.jti, outcome=DeliveryOutcome.DUPLICATE, reason="")
        self.accepted[event.jti] = event
        outcome = DeliveryOutcome.SIGNAL if event.signals else DeliveryOutcome.IGNORED
        made = (f"rev-{event.jti}",) if event.signals else ()
        return Acceptance(delivery=event.jti, outcome=outcome, reason="", revocations=made)


@pytest.fixture
def events() -> MemoryEvents:
    return MemoryEvents()


@pytest.fixture
def pushed(events: MemoryEvents, ledger: MemoryLedger, ring: MemoryRing) -> FlaskClient:
    settings = WebSettings(base_url="https://aswhom.example")
    return create_app(settings, ledger, registry(), ring, security_events=events, clock=lambda: NOW).test_client()


def push(client: FlaskClient, token: bytes, *, to: str = "idp", content_type: str = SET) -> TestResponse:
    return client.post(f"/events/{to}", data=token, content_type=content_type, buffered=True)


def _counted(outcome: str, transmitter: str = "idp") -> float:
    labels = {"outcome": outcome, "transmitter": transmitter}
    return REGISTRY.get_sample_value("aswhom_security_events_total", labels) or 0


def test_what_a_stranger_calls_a_transmitter_is_no_label(pushed: FlaskClient) -> None:
    before = _counted("unknown-transmitter", "")
    assert push(pushed, sign(claims()), to="canary").status_code == 404
    assert _counted("unknown-transmitter", "") == before + 1
    assert "canary" not in pushed.get("/metrics").text


def test_an_alert_sees_the_first_delivery_and_the_first_token_that_are_answered_with_5xx(pushed: FlaskClient) -> None:
    """Prometheus sees no increase from nothing to one."""
    page = pushed.get("/metrics").text
    routes = [one.rule for one in pushed.application.url_map.iter_rules() if re.match("/(webhooks|events)/", one.rule)]
    assert len(routes) == 2
    for route in routes:
        for status in (500, 503):
            assert f'aswhom_http_requests_total{{method="POST",route="{route}",status="{status}"}}' in page


def test_a_token_is_answered_with_202_and_nothing_and_rung_for(
    pushed: FlaskClient, events: MemoryEvents, ring: MemoryRing
) -> None:
    for _ in range(2):
        response = push(pushed, sign(claims()))
        assert (response.status_code, response.data) == (202, b"")
    assert list(events.accepted) == ["j-1"]
    assert ring.rung == ["rev-j-1"]


@pytest.mark.parametrize(
    ("token", "code", "counted"),
    [
        (b"no token", "invalid_request", "unsigned"),
        (sign(claims(iss="https://else.example/"), kid="k9"), "invalid_key", "unsigned"),
        (sign(claims(iss="https://else.example/"), OTHER, kid="k1"), "authentication_failed", "unsigned"),
        (sign(claims(), kid="k9"), "invalid_key", "unverified"),
        (sign(claims(), OTHER, kid="k1"), "authentication_failed", "unverified"),
        (sign(claims(), typ="JWT"), "invalid_request", "unverified"),
        (sign(claims(iss="https://else.example/")), "invalid_issuer", "invalid_issuer"),
        (sign(claims(aud="else")), "invalid_audience", "invalid_audience"),
        (sign(claims(jti="")), "invalid_request", "invalid_request"),
    ],
)
def test_a_refusal_is_400_with_a_code_and_leaves_nothing(
    pushed: FlaskClient, events: MemoryEvents, token: bytes, code: str, counted: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What no signature was seen to hold of is counted apart: nobody heeds an alert that anybody sets off."""
    before = _counted(counted)
    response = push(pushed, token)
    assert _counted(counted) == before + 1
    (told,) = (vars(one) for one in caplog.records if vars(one).get("action") == "event.refused")
    assert (told["transmitter"], told["err"]) == ("idp", code)
    assert (response.status_code, response.content_type) == (400, "application/json")
    document = json.loads(response.data)
    assert document.keys() == {"err", "description"}
    assert document["err"] == code
    assert response.headers["Content-Language"] == "en"
    assert not events.accepted


def test_what_the_ledger_or_the_key_set_cannot_do_now_is_asked_for_again(
    pushed: FlaskClient, events: MemoryEvents
) -> None:
    for attribute in ("away", "keyless"):
        setattr(events, attribute, Unavailable("not now"))
        response = push(pushed, sign(claims()))
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) >= 1
    assert not events.accepted


def test_a_revocation_of_nobody_is_taken_and_counted_as_that(
    pushed: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Its sender has its 202, and says no more: somebody here has to look."""

    before, signals = _counted("nobody"), _counted("signal")
    elsewhere = {"format": "iss_sub", "iss": "https://another.example/", "sub": "u-1"}
    assert push(pushed, sign(claims(sub_id=elsewhere))).status_code == 202
    assert push(pushed, sign(claims(jti="j-2", sub_id={"format": "email", "email": "a@b"}))).status_code == 202
    assert (_counted("nobody"), _counted("signal")) == (before + 2, signals)
    assert [one.levelname for one in caplog.records if vars(one).get("action") == "event.nobody"] == ["WARNING"] * 2
    assert push(pushed, sign(claims(jti="j-3"))).status_code == 202
    assert (_counted("nobody"), _counted("signal")) == (before + 2, signals + 1)


def test_an_event_that_asks_for_nothing_is_taken(pushed: FlaskClient, events: MemoryEvents, ring: MemoryRing) -> None:
    assert push(pushed, sign(claims(kind=RISC + "account-enabled"))).status_code == 202
    assert events.accepted["j-1"].signals == ()
    assert ring.rung == []


def test_only_what_is_a_security_event_by_its_head_is_read(pushed: FlaskClient, events: MemoryEvents) -> None:
    before = _counted("unsigned")
    for odd in (
        push(pushed, sign(claims()), content_type="application/json"),
        push(pushed, b"x" * 100_001),
        pushed.post("/events/idp", input_stream=BytesIO(b"x" * 100_002), content_type=SET, environ_base=CHUNKED),
    ):
        assert (odd.status_code, json.loads(odd.data)["err"]) == (400, "invalid_request")
    assert _counted("unsigned") == before + 3
    assert push(pushed, sign(claims()), to="nobody").status_code == 404
    events.removed = True
    assert push(pushed, sign(claims())).json == push(pushed, b"", to="nobody").json
    assert pushed.get("/events/idp").status_code == 405
    assert not events.accepted
