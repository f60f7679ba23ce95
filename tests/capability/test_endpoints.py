"""The four addresses: RFC 7517, RFC 8414, RFC 8693 and RFC 7662 over HTTP."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from flask.testing import FlaskClient
from prometheus_client import REGISTRY

from identity.capability.verifier import Verifier, read_key_set
from tests.capability.asking import EXCHANGE, JWT, ask, client_of, exchange_form, of
from tests.capability.capability_ledger import BANK, BASE, INVOICES, NEXT, PAID, CapabilityLedger


def test_metadata_leads_to_keys_that_verify(client: FlaskClient, shared_ledger: CapabilityLedger) -> None:
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
    token = shared_ledger.token().reveal()
    assert verifier.verify(token, now=datetime.now(UTC), request_sha256=PAID).subject == "acme.ada"


def test_the_metadata_says_what_there_is_and_its_addresses_answer(
    client: FlaskClient, shared_ledger: CapabilityLedger
) -> None:
    """RFC 8414 §2: whoever knows the issuer alone finds the rest, and needs nothing that is not said here."""
    metadata = client.get("/.well-known/oauth-authorization-server").json
    assert metadata == {
        "issuer": BASE,
        "jwks_uri": f"{BASE}/.well-known/jwks.json",
        "token_endpoint": f"{BASE}/oauth/token",
        "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        "introspection_endpoint": f"{BASE}/oauth/introspect",
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic"],
        "grant_types_supported": [EXCHANGE],
        "response_types_supported": [],
        "authorization_details_types_supported": ["aswhom_action"],
        "capability_signing_alg_values_supported": ["Ed25519", "ES256"],
        "aswhom_extension_parameters": {
            "token_endpoint": {"request_sha256": "required", "lifetime": "optional"},
            "introspection_endpoint": {"request_sha256": "optional"},
        },
    }
    exchange, introspect = (metadata[name].removeprefix(BASE) for name in ("token_endpoint", "introspection_endpoint"))
    form = exchange_form(shared_ledger.token().reveal(), grant_type=metadata["grant_types_supported"][0])
    status, passed = ask(client, exchange, of(INVOICES), **form)
    assert status == 200
    _, told = ask(client, introspect, of(BANK), token=passed["access_token"], request_sha256=NEXT)
    assert told["spend"] == "first"


def counted(metric: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"aswhom_{metric}_total", labels) or 0


def test_each_answer_about_a_token_is_counted_by_what_it_was(
    client: FlaskClient, shared_ledger: CapabilityLedger
) -> None:
    token = shared_ledger.token().reveal()
    for outcome, said in (
        ("first", {"token": token, "request_sha256": PAID}),
        ("again", {"token": token, "request_sha256": PAID}),
        ("refused", {"token": token, "request_sha256": NEXT}),
        ("unverified", {"token": "no token"}),
    ):
        outcomes = ("first", "again", "refused", "unverified")
        before = {name: counted("capability_spends", outcome=name) for name in outcomes}
        ask(client, "/oauth/introspect", of(INVOICES), **said)
        after = {name: counted("capability_spends", outcome=name) - before[name] for name in outcomes}
        assert after == {name: float(name == outcome) for name in outcomes}
    before = {how: counted("capabilities_issued", how=how) for how in ("step", "exchange")}
    ask(client, "/oauth/token", of(INVOICES), **exchange_form(shared_ledger.token().reveal()))
    assert {how: counted("capabilities_issued", how=how) - before[how] for how in before} == {"step": 0, "exchange": 1}


def test_introspection_spends_and_says_so(client: FlaskClient, shared_ledger: CapabilityLedger) -> None:
    token = shared_ledger.token().reveal()
    for spend in ("first", "again"):
        status, said = ask(client, "/oauth/introspect", of(INVOICES), token=token, request_sha256=PAID)
        assert (status, said["active"], said["spend"]) == (200, True, spend)
    status, said = ask(client, "/oauth/introspect", of(INVOICES), token=token, request_sha256=NEXT)
    assert (status, said) == (200, {"active": False, "reason": "request"})


def test_who_is_not_the_audience_learns_nothing_of_a_token(
    client: FlaskClient, shared_ledger: CapabilityLedger
) -> None:
    token = shared_ledger.token().reveal()
    assert ask(client, "/oauth/introspect", of(BANK), token=token) == (200, {"active": False})


def test_an_exchange_gives_a_token_for_the_next_service(client: FlaskClient, shared_ledger: CapabilityLedger) -> None:
    details = [{"type": "aswhom_action", "limit": {"amount": "100.00", "currency": "EUR"}}]
    form = exchange_form(shared_ledger.token().reveal(), authorization_details=json.dumps(details))
    status, said = ask(client, "/oauth/token", of(INVOICES), **form)
    assert status == 200
    assert (said["issued_token_type"], said["token_type"]) == (JWT, "Bearer")
    assert 0 < said["expires_in"] <= 120
    status, told = ask(client, "/oauth/introspect", of(BANK), token=said["access_token"], request_sha256=NEXT)
    assert (told["active"], told["authorization_details"][0]["limit"]["amount"]) == (True, "100.00")


def test_what_is_issued_is_called_as_it_was_asked_for(client: FlaskClient, shared_ledger: CapabilityLedger) -> None:
    """RFC 8693 §2.2.1."""
    access_token = "urn:ietf:params:oauth:token-type:access_token"
    for asked, issued in ((access_token, access_token), (JWT, JWT), ("", JWT)):
        form = exchange_form(shared_ledger.token().reveal(), requested_token_type=asked)
        _, said = ask(client, "/oauth/token", of(INVOICES), **form)
        assert said["issued_token_type"] == issued


def test_an_exchange_that_is_repeated_says_how_long_its_token_lives_from_then_on(
    ledger_on_sqlite: CapabilityLedger,
) -> None:
    """RFC 6749 §5.1, as RFC 8693 §2.2.1 has it: counted from the answer."""
    ledger = ledger_on_sqlite
    client, form = client_of(ledger), exchange_form(ledger.token().reveal())
    _, first = ask(client, "/oauth/token", of(INVOICES), **form)
    ledger.ahead = timedelta(seconds=40)
    _, again = ask(client, "/oauth/token", of(INVOICES), **form)
    assert again["expires_in"] <= first["expires_in"] - 39
    _, told = ask(client, "/oauth/introspect", of(BANK), token=again["access_token"], request_sha256=NEXT)
    assert told["exp"] - ledger.now().timestamp() >= again["expires_in"] - 1
