"""What the authority refuses over HTTP, in the codes of RFC 6749, 8693 and 9396, and while its ledger is away."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update

from identity.capability import tables
from identity.capability.model import Audience
from identity.capability.narrowing import Narrower
from identity.capability.token_exchange import Exchanged, NotExchanged
from identity.errors import Unavailable
from identity.model import Scope, ScopeKind
from identity.secret import Secret
from identity.sql.store import CommitUnknown
from tests.capability.asking import ask, basic, client_of, exchange_form, of
from tests.capability.capability_ledger import BANK, BASE, CELLAR, INVOICES, PAID, VAULT_ROOM, CapabilityLedger
from tests.webhooks.parts import MemoryLedger, MemoryRing, registry
from webhooks.app import create_app
from webhooks.settings import WebSettings


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
        ({"resource": "https://bank.example"}, "invalid_request", None),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "invalid_request", None),
        ({"request_sha256": "short"}, "invalid_request", None),
        ({"request_sha256": ""}, "invalid_request", None),
        ({"audience": ["https://bank.example", "https://x.example"]}, "invalid_request", None),
        ({"audience": "https://unknown.example"}, "invalid_target", "target"),
        ({"audience": "https://vault.example"}, "invalid_target", "target"),
        ({"lifetime": "-1"}, "invalid_request", None),
        ({"authorization_details": "{"}, "invalid_authorization_details", None),
        ({"authorization_details": detail(type="other")}, "invalid_authorization_details", None),
        ({"authorization_details": detail(identifier="invoices/inv_7/\0")}, "invalid_authorization_details", None),
        ({"authorization_details": detail(identifier="invoices/inv_7/\ud800")}, "invalid_authorization_details", None),
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
    client: FlaskClient, shared_ledger: CapabilityLedger, other: dict[str, Any], error: str, reason: str | None
) -> None:
    form = exchange_form(shared_ledger.token().reveal(), **other)
    status, said = ask(client, "/oauth/token", of(INVOICES), **form)
    assert (status, said["error"], said.get("reason")) == (400, error, reason)


def test_a_token_that_does_not_count_is_exchanged_for_none(ledger_on_sqlite: CapabilityLedger) -> None:
    client = client_of(ledger_on_sqlite)

    def refused(token: str, by: Audience = INVOICES, **other: Any) -> tuple[int, str, str | None]:
        status, said = ask(client, "/oauth/token", of(by), **exchange_form(token, **other))
        return status, said["error"], said.get("reason")

    exchanged = ledger_on_sqlite.token().reveal()
    ask(client, "/oauth/token", of(INVOICES), **exchange_form(exchanged))
    assert refused(exchanged, request_sha256="b" * 64) == (400, "invalid_request", "spent")
    ended = ledger_on_sqlite.issue()
    ledger_on_sqlite.close(ended)
    assert refused(ledger_on_sqlite.token(ended).reveal()) == (400, "invalid_request", "closed")
    revoked = ledger_on_sqlite.token().reveal()
    ledger_on_sqlite.revoke(Scope(kind=ScopeKind.USER, key="acme.ada"))
    assert refused(revoked) == (400, "invalid_request", "revoked")


def test_what_leads_to_another_tenants_service_is_exchanged_for_none(ledger_on_sqlite: CapabilityLedger) -> None:
    """None is registered so: somebody has changed the row."""
    client = client_of(ledger_on_sqlite)
    theirs = update(tables.audiences).where(tables.audiences.c.id == BANK.id).values(tenant_id="globex")
    ledger_on_sqlite.database.write(lambda c: c.execute(theirs).rowcount)
    status, said = ask(client, "/oauth/token", of(INVOICES), **exchange_form(ledger_on_sqlite.token().reveal()))
    assert (status, said["error"], said["reason"]) == (400, "invalid_target", "tenant")


def test_what_went_through_too_many_hands_is_exchanged_for_none(
    client: FlaskClient, shared_ledger: CapabilityLedger
) -> None:
    token = shared_ledger.token().reveal()
    for by, to in ((INVOICES, BANK), (BANK, VAULT_ROOM)):
        _, said = ask(client, "/oauth/token", of(by), **exchange_form(token, audience=to.uri))
        token = said["access_token"]
    status, said = ask(client, "/oauth/token", of(VAULT_ROOM), **exchange_form(token, audience=CELLAR.uri))
    assert (status, said["error"], said["reason"]) == (400, "invalid_request", "depth")


class Away:
    """An authority whose ledger does not answer: at once, or once it is known who asks."""

    def __init__(self, *, knows: bool, error: Exception) -> None:
        self.knows = knows
        self.error = error

    def key_set(self) -> dict[str, Any]:
        raise self.error

    def audience(self, id: str, secret: Secret) -> Audience | None:
        if self.knows:
            return INVOICES
        raise self.error

    def introspect(self, token: Secret, by: Audience, *, request_sha256: str | None) -> dict[str, Any]:
        raise self.error

    def exchange(self, token: Secret, by: Audience, *, target: str, asked: Narrower) -> Exchanged | NotExchanged:
        raise self.error


@pytest.mark.parametrize("path", ["/oauth/introspect", "/oauth/token"])
@pytest.mark.parametrize("knows", [False, True], ids=["before it is known who asks", "after"])
@pytest.mark.parametrize(
    "error", [Unavailable("the ledger is away"), CommitUnknown()], ids=lambda one: type(one).__name__
)
def test_a_ledger_that_is_away_is_no_answer_about_a_token(path: str, knows: bool, error: Exception) -> None:
    web = WebSettings(base_url=BASE)
    away = Away(knows=knows, error=error)
    client = create_app(web, MemoryLedger(), registry(), MemoryRing(), authority=away).test_client()
    response = client.post(path, data={"token": "t", **exchange_form("t")}, headers=of(INVOICES))
    assert (response.status_code, response.headers["Cache-Control"]) == (503, "no-store")
    assert int(response.headers["Retry-After"]) > 0
    assert response.content_type == "application/json"
    assert json.loads(response.data)["error"] == "temporarily_unavailable"


@pytest.mark.parametrize("path", ["/oauth/introspect", "/oauth/token"])
def test_every_error_is_one_that_clients_of_oauth_read(client: FlaskClient, path: str) -> None:
    """RFC 6749 §5.2, where the app's own form would be a problem document; RFC 6749 §5.1's headers on each."""
    large = client.post(path, data={"token": "t" * 30_000}, headers=of(INVOICES))
    other = client.get(path)
    for response, status in ((large, 413), (other, 405)):
        assert (response.status_code, response.content_type) == (status, "application/json")
        assert json.loads(response.data)["error"] == "invalid_request"
        assert (response.headers["Cache-Control"], response.headers["Pragma"]) == ("no-store", "no-cache")
    assert "POST" in other.headers["Allow"]
    assert client.get("/oauth/else").content_type == "application/problem+json"
    web = WebSettings(base_url=BASE)
    faulty = Away(knows=True, error=LookupError())
    broken = create_app(web, MemoryLedger(), registry(), MemoryRing(), authority=faulty).test_client()
    failed = broken.post(path, data={"token": "t", **exchange_form("t")}, headers=of(INVOICES))
    assert (failed.status_code, json.loads(failed.data)["error"]) == (500, "server_error")


@pytest.mark.parametrize("path", ["/oauth/introspect", "/oauth/token"])
@pytest.mark.parametrize(
    "also", [{"client_id": "bank"}, {"client_id": "invoices", "client_secret": "x"}, {"client_assertion": "x"}]
)
def test_who_authenticates_in_two_ways_is_refused(client: FlaskClient, path: str, also: dict[str, str]) -> None:
    """RFC 6749 §2.3: two would be two clients, of which a proxy may see one and we the other."""
    status, said = ask(client, path, of(INVOICES), token="t", **exchange_form("t"), **also)
    assert (status, said["error"]) == (400, "invalid_request")
    assert "authenticate once" in said["error_description"]


def test_the_name_alone_is_no_second_way(client: FlaskClient) -> None:
    status, said = ask(client, "/oauth/introspect", of(INVOICES), token="t", client_id="invoices")
    assert (status, said["active"]) == (200, False)


def test_parameters_that_are_no_form_are_refused(client: FlaskClient) -> None:
    response = client.post("/oauth/introspect", json={"token": "x"}, headers=of(INVOICES))
    assert (response.status_code, response.json and response.json["error"]) == (400, "invalid_request")


def test_a_nul_is_no_part_of_a_client_or_a_parameter(ledger: CapabilityLedger) -> None:
    """PostgreSQL takes none in a text."""
    client = client_of(ledger)
    for client_id in ("\0", "%00"):
        status, said = ask(client, "/oauth/introspect", basic(client_id, "x"), token="x", request_sha256=PAID)
        assert (status, said["error"]) == (401, "invalid_client")
    form = exchange_form(ledger.token().reveal(), audience="\0")
    status, said = ask(client, "/oauth/token", of(INVOICES), **form)
    assert (status, said["error"]) == (400, "invalid_request")
