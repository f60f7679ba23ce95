"""Pages of a list, as callers of the API turn them."""

from __future__ import annotations

from pipeline.ledger.paging import STRETCH, Place, Turn
from webhooks import problems
from webhooks.api.models import Paged
from webhooks.cursors import place_in_time
from webhooks.problems import Problem


def turn(query: Paged) -> Turn:
    """Which page *query* asks for. Raises Problem for a cursor that is none of ours."""
    return Turn(limit=query.limit, after=None if query.cursor is None else _place(query.cursor), stretch=STRETCH)


def _place(text: str) -> Place:
    try:
        return place_in_time(text)
    except ValueError:  # pydantic's and base64's own are kinds of it
        detail = "This cursor is none of ours. Send `next` of the page before, or none for the first page."
        raise Problem(problems.UNUSABLE, detail) from None
