"""Pages of a list, and the cursors between them."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import Field, TypeAdapter

from pipeline.ledger.views import Place, Turn
from webhooks import problems
from webhooks.api.models import Paged
from webhooks.problems import Problem

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PLACE: TypeAdapter[tuple[int, str]] = TypeAdapter(
    tuple[Annotated[int, Field(strict=True, ge=0, lt=10**17)], Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")]]
)


def turn(query: Paged) -> Turn:
    """Which page *query* asks for. Raises Problem for a cursor that is none of ours."""
    return Turn(limit=query.limit, after=None if query.cursor is None else _place(query.cursor))


def cursor(place: Place | None) -> str | None:
    """A place, for the caller to send back as it is. It grants nothing: what is seen is decided anew."""
    if place is None:
        return None
    text = json.dumps([(place.at - _EPOCH) // _MICROSECOND, place.id], separators=(",", ":"))
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _place(text: str) -> Place:
    try:
        at, id = _PLACE.validate_json(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:  # pydantic's and base64's own are kinds of it
        detail = "This cursor is none of ours. Send `next` of the page before, or none for the first page."
        raise Problem(problems.UNUSABLE, detail) from None
    return Place(at=_EPOCH + at * _MICROSECOND, id=id)
