"""Responses of the operations: one model as JSON, or a page of them."""

from __future__ import annotations

from collections.abc import Iterable

from flask import Response, jsonify

from pipeline.ledger.paging import Place
from webhooks.api.models import Given
from webhooks.cursors import cursor


def answer(given: Given, status: int = 200) -> Response:
    """Return *given* as a JSON response."""
    response = jsonify(given.model_dump(mode="json"))
    response.status_code = status
    return response


def answer_page(items: Iterable[Given], *, next: Place | None) -> Response:
    """Return a page of a list; *next*: where the following page begins."""
    return jsonify(items=[item.model_dump(mode="json") for item in items], next=cursor(next))
