"""Cursors: where a page of a list ended, as opaque text for requesting the next. They grant nothing."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

from pydantic import Field, TypeAdapter

from pipeline.ledger.paging import STRETCH, Place, Turn

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_Number = Annotated[int, Field(strict=True, ge=0, lt=10**17)]
# `checked_id` accepts these ids: no invisible characters, and no spaces.
_PLACE: TypeAdapter[tuple[int, str]] = TypeAdapter(
    tuple[_Number, Annotated[str, Field(pattern=r"^[^\p{C}\p{Z}]{1,200}$")]]
)
_NUMBERED: TypeAdapter[tuple[int, int]] = TypeAdapter(tuple[_Number, _Number])


def cursor(place: Place | None) -> str | None:
    """Encode a place for the client to send back unchanged."""
    if place is None:
        return None
    at = place.at if isinstance(place.at, int) else (place.at - _EPOCH) // _MICROSECOND
    text = json.dumps([at, place.id], separators=(",", ":"))
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def place_in_time(text: str) -> Place:
    """Decode a cursor of a list ordered by time. Raises ValueError."""
    at, id = _read(text, _PLACE)
    return Place(at=_EPOCH + at * _MICROSECOND, id=id)


def place_of_revocation(text: str) -> Place:
    """Decode a cursor of a list of revocations, which is ordered by time and ledger number. Raises ValueError."""
    at, number = _read(text, _NUMBERED)
    return Place(at=_EPOCH + at * _MICROSECOND, id=number)


def place_by_number(text: str) -> Place:
    """Decode a cursor of a list ordered by ledger numbers. Raises ValueError."""
    at, id = _read(text, _PLACE)
    return Place(at=at, id=id)


def asked(limit: int, cursor: str | None, read: Callable[[str], Place] = place_in_time) -> Turn:
    """Return the page after *cursor*; None: the first. Raises ValueError for an invalid cursor."""
    return Turn(limit=limit, after=None if cursor is None else read(cursor), stretch=STRETCH)


def _read(text: str, place: TypeAdapter[T]) -> T:
    # pydantic's and base64's own errors are subclasses of ValueError
    return place.validate_json(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
