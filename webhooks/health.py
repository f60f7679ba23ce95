"""`/healthz`: the process is up. `/readyz`: it could accept a delivery now."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from webhooks.ledger import Ledger


def health(ledger: Ledger) -> Blueprint:
    """The two questions a supervisor asks."""
    pages = Blueprint("health", __name__)

    @pages.get("/healthz")
    def alive() -> Response:
        return jsonify(status="up")

    @pages.get("/readyz")
    def ready() -> Response:
        ledger.ready()
        return jsonify(status="ready")

    return pages
