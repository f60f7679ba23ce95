"""The four addresses: RFC 7517, RFC 8414, RFC 8693 and RFC 7662 over HTTP."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

import pytest
from flask.testing import FlaskClient

from identity.capability.model import Audience
from identity.capability.verifier import Verifier, read_key_set
from tests.capability.court import BANK, BASE, INVOICES, PAID, Court, secret_of
from tests.webhooks.parts import MemoryLedger, MemoryRing, registry
from webhooks.app import create_app
from webhooks.settings import WebSettings

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"
NEXT = "a" * 64


@pytest.fixture
def client(standing_court: Court) -> FlaskClient:
    return client_of(standing_court)


def client_of(court: Court) -> FlaskClient:
    web = WebSettings(base_url=BASE)
    return create_app(web, MemoryLedger(), registry(), MemoryRing(), authority=court.authority).test_client()


def basic(id: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{id}:{secret}".encode()).decode()}


def of(audience: Audience) -> dict[str, str]:
    return basic(audience.id, secret_of(audience).reveal())


def ask(client: FlaskClient, path: str, headers: dict[str, str], **form: Any) -> tuple[int, dict[str, Any]]:
    response = client.post(path, data=form, headers=headers)
    assert response.headers["Cache-Control"] == "no-store"
    return response.status_code, json.loads(response.data)


def exchange_form(token: str, **other: Any) -> dict[str, Any]:
    base = {
        "grant_type": EXCHANGE,
        "subject_token": token,
        "subject_token_type": JWT,
        "audience": BANK.uri,
        "request_sha256": NEXT,
    }
    return {**base, **other}


def test_metadata_leads_to_keys_that_verify(client: FlaskClient, standing_court: Court) -> None:
    metadata = client.get("/.well-known/oauth-authorization-server")
    assert metadata.headers["Cache-Control"] == "public, max-age=300"
    assert metadata.json is not None
    assert metadata.json["issuer"] == BASE
    assert metadata.json["grant_types_supported"] == [EXCHANGE]
    published = client.get(metadata.json["jwks_uri"].removeprefix(BASE))
    assert published.content_type == "application/jwk-set+json"
    keys = read_key_set(json.loads(published.data))

    class Published:
        def key(self, kid: str) -> Any:
            return keys.get(kid)

    verifier = Verifier(issuer=BASE, audience=INVOICES.uri, keys=Published())
    token = standing_court.token().reveal()
    assert verifier.verify(token, now=datetime.now(UTC), request_sha256=PAID).subject == "acme.ada"


def test_introspection_spends_and_says_so(client: FlaskClient, standing_court: Court) -> None:
    token = standing_court.token().reveal()
    for spend in ("first", "again"):
        status, said = ask(client, "/oauth/introspect", of(INVOICES), token=token, request_sha256=PAID)
        assert (status, said["active"], said["spend"]) == (200, True, spend)
    status, said = ask(client, "/oauth/introspect", of(INVOICES), token=token, request_sha256=NEXT)
    assert (status, said) == (200, {"active": False, "reason": "request"})


def test_who_is_not_the_audience_learns_nothing_of_a_token(client: FlaskClient, standing_court: Court) -> None:
    token = standing_court.token().reveal()
    assert ask(client, "/oauth/introspect", of(BANK), token=token) == (200, {"active": False})


@pytest.mark.parametrize("path", ["/oauth/introspect", "/oauth/token"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer awr_secret-of-invoices"},
        {"Authorization": "Basic !"},
        {"Authorization": "Basic é"},
        basic("invoices", "awr_secret-of-bank"),
        basic("nobody", "awr_secret-of-invoices"),
        basic("invoices", ""),
    ],
)
def test_whoever_does_not_authenticate_is_asked_to(client: FlaskClient, path: str, headers: dict[str, str]) -> None:
    response = client.post(path, data={"token": "t"}, headers=headers)
    assert (response.status_code, json.loads(response.data)["error"]) == (401, "invalid_client")
    assert response.headers["WWW-Authenticate"].startswith("Basic ")


def test_an_exchange_gives_a_token_for_the_next_service(client: FlaskClient, standing_court: Court) -> None:
    details = [{"type": "aswhom_action", "limit": {"amount": "100.00", "currency": "EUR"}}]
    form = exchange_form(standing_court.token().reveal(), authorization_details=json.dumps(details))
    status, said = ask(client, "/oauth/token", of(INVOICES), **form)
    assert status == 200
    assert (said["issued_token_type"], said["token_type"]) == (JWT, "Bearer")
    assert 0 < said["expires_in"] <= 120
    status, told = ask(client, "/oauth/introspect", of(BANK), token=said["access_token"], request_sha256=NEXT)
    assert (told["active"], told["authorization_details"][0]["limit"]["amount"]) == (True, "100.00")


def detail(**other: Any) -> str:
    return json.dumps([{"type": "aswhom_action", **other}])


@pytest.mark.parametrize(
    ("other", "error", "reason"),
    [
        ({"grant_type": "client_credentials"}, "unsupported_grant_type", None),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request", None),
        ({"subject_token": "no token"}, "invalid_request", "malformed"),
        ({"actor_token": "x"}, "invalid_request", None),
        ({"scope": "all"}, "invalid_request", None),
        ({"request_sha256": "short"}, "invalid_request", None),
        ({"request_sha256": ""}, "invalid_request", None),
        ({"audience": ["https://bank.example", "https://x.example"]}, "invalid_request", None),
        ({"audience": "https://unknown.example"}, "invalid_target", "target"),
        ({"audience": "https://vault.example"}, "invalid_target", "target"),
        ({"lifetime": "-1"}, "invalid_request", None),
        ({"authorization_details": "{"}, "invalid_authorization_details", None),
        ({"authorization_details": detail(type="other")}, "invalid_authorization_details", None),
        ({"authorization_details": detail(privileges=["all"])}, "invalid_authorization_details", None),
        ({"authorization_details": detail(locations=["https://x.example"])}, "invalid_authorization_details", None),
        (
            {"authorization_details": detail(limit={"amount": "1000000", "currency": "EUR"})},
            "invalid_authorization_details",
            "amount",
        ),
        (
            {"authorization_details": detail(limit={"amount": 7, "currency": "EUR"})},
            "invalid_authorization_details",
            None,
        ),
    ],
    ids=str,
)
def test_a_refused_exchange_says_why_in_the_rfcs_own_codes(
    client: FlaskClient, standing_court: Court, other: dict[str, Any], error: str, reason: str | None
) -> None:
    form = exchange_form(standing_court.token().reveal(), **other)
    status, said = ask(client, "/oauth/token", of(INVOICES), **form)
    assert (status, said["error"], said.get("reason")) == (400, error, reason)


def test_parameters_that_are_no_form_are_refused(client: FlaskClient) -> None:
    response = client.post("/oauth/introspect", json={"token": "x"}, headers=of(INVOICES))
    assert (response.status_code, response.json and response.json["error"]) == (400, "invalid_request")


def test_a_nul_is_no_part_of_a_client_or_a_parameter(court: Court) -> None:
    """PostgreSQL takes none in a text."""
    client = client_of(court)
    for client_id in ("\0", "%00"):
        status, said = ask(client, "/oauth/introspect", basic(client_id, "x"), token="x", request_sha256=PAID)
        assert (status, said["error"]) == (401, "invalid_client")
    form = exchange_form(court.token().reveal(), audience="\0")
    status, said = ask(client, "/oauth/token", of(INVOICES), **form)
    assert (status, said["error"]) == (400, "invalid_request")
