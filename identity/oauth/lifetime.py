"""Token lifetimes, as answers state them.

A lifetime counts from the start of the request. The token was made later, so its life is never overestimated. An
absolute time (`expires_at`) is by the provider's clock, which may differ from ours, so it is read against the answer's
Date.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

_GUESSED = timedelta(hours=1)
_LONGEST = timedelta(days=3650)
_DATE_COUNTS = timedelta(seconds=1)  # Date has whole seconds: the answer may be up to one second younger


def expiry(
    held: Mapping[str, Any], *, started_at: datetime, answered_at: datetime | None, last: timedelta | None
) -> datetime | None:
    """Return when the token of the answer *held* expires, on our clock; None if it does not.

    Taken from `expires_in`, otherwise `expires_at`, otherwise *last*, the last known lifetime. *answered_at* is the
    time the provider stated in the answer, if it did.
    """
    read_at, late = (started_at, timedelta()) if answered_at is None else (answered_at, _DATE_COUNTS)
    life = _seconds(held.get("expires_in")) or _until(held.get("expires_at"), read_at, late) or last
    if life is None and any(held.get(name) is not None for name in ("expires_in", "expires_at")):
        life = _GUESSED  # an unreadable value still says that the token expires
    return None if life is None else started_at + min(life, _LONGEST)


def http_date(value: str) -> datetime | None:
    """Return the time named by a header such as Date or Retry-After (RFC 9110 §5.6.7); None if it is unreadable."""
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # the year and the zone may have any number of digits
        return None
    return at if at.tzinfo is not None else None


def count(value: str, *, digits: int = 9) -> int | None:
    """Return a header's whole number; None if it is not one, or is implausibly long."""
    return int(value) if value.isascii() and value.isdecimal() and len(value) <= digits else None


def number(value: Any) -> float | None:
    """Return a finite number, also from text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        read = float(value)
    except (ValueError, OverflowError):
        return None
    return read if math.isfinite(read) else None


def moment(value: Any) -> datetime | None:
    """Parse ISO 8601, as GitHub's installations have it, or seconds since 1970."""
    if (seconds := number(value)) is not None:
        return datetime.fromtimestamp(seconds, UTC) if 0 < seconds < 32503680000 else None
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _seconds(value: Any) -> timedelta | None:
    """Return a positive duration; None for 0, or a value as small as 1e-10."""
    seconds = number(value)
    return (timedelta(seconds=max(0.0, min(seconds, 1e9))) or None) if seconds is not None else None


def _until(value: Any, read_at: datetime, late: timedelta) -> timedelta | None:
    """Return the time that is left *late* after *read_at*; None if there is none."""
    at = moment(value)
    left = at - read_at - late if at is not None else timedelta()
    return left if left > timedelta() else None
