"""Asking the authority over HTTP, as the services that take capabilities do."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from flask.testing import FlaskClient

from identity.capability.model import Audience
from tests.capability.capability_ledger import BANK, BASE, NEXT, CapabilityLedger, secret_of
from tests.webhooks.parts import MemoryLedger, MemoryRing, registry
from webhooks.app import create_app
from webhooks.settings import WebSettings

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"


def client_of(ledger: CapabilityLedger) -> FlaskClient:
    web = WebSettings(base_url=BASE)
    app = create_app(web, MemoryLedger(), registry(), MemoryRing(), authority=ledger.authority, clock=ledger.now)
    return app.test_client()


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
