"""Cursors: where a page of a list ended, as opaque text for requesting the next. They grant nothing."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import Field, TypeAdapter

from pipeline.ledger.paging import STRETCH, Place, Turn

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# `checked_id` accepts these ids: no invisible characters, and no spaces.
_PLACE: TypeAdapter[tuple[int, str]] = TypeAdapter(
    tuple[Annotated[int, Field(strict=True, ge=0, lt=10**17)], Annotated[str, Field(pattern=r"^[^\p{C}\p{Z}]{1,200}$")]]
)


def cursor(place: Place | None) -> str | None:
    """Encode a place for the client to send back unchanged."""
    if place is None:
        return None
    at = place.at if isinstance(place.at, int) else (place.at - _EPOCH) // _MICROSECOND
    text = json.dumps([at, place.id], separators=(",", ":"))
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def place_in_time(text: str) -> Place:
    """Decode a cursor of a list ordered by time. Raises ValueError."""
    at, id = _read(text)
    return Place(at=_EPOCH + at * _MICROSECOND, id=id)


def place_by_number(text: str) -> Place:
    """Decode a cursor of a list ordered by ledger numbers. Raises ValueError."""
    at, id = _read(text)
    return Place(at=at, id=id)


def asked(limit: int, cursor: str | None, read: Callable[[str], Place] = place_in_time) -> Turn:
    """Return the page after *cursor*; None: the first. Raises ValueError for an invalid cursor."""
    return Turn(limit=limit, after=None if cursor is None else read(cursor), stretch=STRETCH)


def _read(text: str) -> tuple[int, str]:
    # pydantic's and base64's own errors are subclasses of ValueError
    return _PLACE.validate_json(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
