"""What operations answer with: a model as JSON, and a page of them."""

from __future__ import annotations

from collections.abc import Iterable

from flask import Response, jsonify

from pipeline.ledger.paging import Place
from webhooks.api.models import Given
from webhooks.cursors import cursor


def answer(given: Given, status: int = 200) -> Response:
    """The answer that is *given*."""
    response = jsonify(given.model_dump(mode="json"))
    response.status_code = status
    return response


def answer_page(items: Iterable[Given], *, next: Place | None) -> Response:
    """A page of a list; *next*: where the one after it begins."""
    return jsonify(items=[item.model_dump(mode="json") for item in items], next=cursor(next))
