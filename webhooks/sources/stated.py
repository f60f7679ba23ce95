"""Validation of names and times that outsiders state, so that the ledger can store them; None if invalid. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

# A text column of PostgreSQL stores no NUL, and UTF-8 encodes no lone surrogate: JSON can spell both.
_NAME = re.compile(r"[!-~]{1,200}")


def name(value: Any) -> str | None:
    """Return a provider's id or name of something: visible ASCII, at most 200 characters."""
    return value if isinstance(value, str) and _NAME.fullmatch(value) else None


def names(value: Any) -> frozenset[str] | None:
    """Return a list that holds only names."""
    if not isinstance(value, list) or any(name(one) is None for one in value):
        return None
    return frozenset(value)


def of_iso(value: Any) -> datetime | None:
    """Parse an ISO 8601 time; UTC if it has no offset."""
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
        return at and _reckonable(at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC))
    except (ValueError, OverflowError):
        return None


def of_seconds(value: Any) -> datetime | None:
    """Parse a time in whole seconds since 1970."""
    try:
        # a bool is an int as well
        return _reckonable(datetime.fromtimestamp(value, UTC)) if type(value) is int else None
    except (ValueError, OverflowError, OSError):
        return None


def _reckonable(at: datetime) -> datetime | None:
    """Exclude both ends of the calendar, so that a second more or less is still a date."""
    return at if 1970 <= at.year < 9999 else None
