"""How long a token lives, by what its answer says of it.

It is counted from when the request began: the token was made later, so it is never taken to live longer than it does.
A moment (`expires_at`) is by the provider's clock, which may not agree with ours: it is read against the answer's Date.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

_GUESSED = timedelta(hours=1)
_LONGEST = timedelta(days=3650)
_DATE_COUNTS = timedelta(seconds=1)  # whole ones: the answer may be so much younger than its Date


def expiry(
    held: Mapping[str, Any], *, started_at: datetime, answered_at: datetime | None, last: timedelta | None
) -> datetime | None:
    """When the token of the answer *held* ends, on our clock; None: it does not.

    By `expires_in`, else `expires_at`, else *last*, the last known lifetime. *answered_at* is what the provider's clock
    said meanwhile, if it said so.
    """
    read_at, late = (started_at, timedelta()) if answered_at is None else (answered_at, _DATE_COUNTS)
    life = _seconds(held.get("expires_in")) or _until(held.get("expires_at"), read_at, late) or last
    if life is None and any(held.get(name) is not None for name in ("expires_in", "expires_at")):
        life = _GUESSED  # something that cannot be read still says that the token ends
    return None if life is None else started_at + min(life, _LONGEST)


def http_date(value: str) -> datetime | None:
    """The moment that a header like Date or Retry-After names (RFC 9110 §5.6.7)."""
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # the year and the zone may have any number of digits
        return None
    return at if at.tzinfo is not None else None


def count(value: str, *, digits: int = 9) -> int | None:
    """A header's whole number, unless it has more digits than anything that can be meant."""
    return int(value) if value.isascii() and value.isdecimal() and len(value) <= digits else None


def number(value: Any) -> float | None:
    """A finite number, also if it comes as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        read = float(value)
    except (ValueError, OverflowError):
        return None
    return read if math.isfinite(read) else None


def moment(value: Any) -> datetime | None:
    """ISO 8601, as GitHub's installations have it, or seconds since 1970."""
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
    """More than nothing: 0 and 1e-10 are no lifetimes."""
    seconds = number(value)
    return (timedelta(seconds=max(0.0, min(seconds, 1e9))) or None) if seconds is not None else None


def _until(value: Any, read_at: datetime, late: timedelta) -> timedelta | None:
    """What is left *late* after *read_at*, which may be the last second there is."""
    at = moment(value)
    left = at - read_at - late if at is not None else timedelta()
    return left if left > timedelta() else None
