"""Deliveries as GitHub would sign them, or nearly so."""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from typing import Any

import httpx
from sqlalchemy import select

from pipeline.tables import deliveries
from tests.system.rig import System


def newest_body(system: System) -> dict[str, Any]:
    """The body of the delivery that was accepted last: GitHub's whole document, to be changed and signed again."""
    (row, *_) = system.rows(select(deliveries.c.body).order_by(deliveries.c.received_at.desc()))
    document: dict[str, Any] = json.loads(row.body)
    return document


def send(
    system: System, body: bytes, *, secret: str | None = None, path: str = "github/github", **headers: str
) -> httpx.Response:
    """Post *body* with a right signature, or with that of another *secret*; named headers replace the usual ones."""
    key = system.world["github"]["webhook_secret"] if secret is None else secret
    usual = {
        "content-type": "application/json",
        "x-github-event": "pull_request",
        "x-github-delivery": str(uuid.uuid4()),
        "x-hub-signature-256": "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest(),
    }
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return system.http.post(f"{system.web}/webhooks/{path}", content=body, headers={**usual, **given})
