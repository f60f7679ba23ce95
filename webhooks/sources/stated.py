"""What strangers state, held to what the ledger can hold: names and moments. None for what is neither. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

# A text column of PostgreSQL takes no NUL, and UTF-8 no half of a surrogate pair: JSON can spell both.
_NAME = re.compile(r"[!-~]{1,200}")


def name(value: Any) -> str | None:
    """A provider's id or name of something: visible ASCII, at most 200 characters."""
    return value if isinstance(value, str) and _NAME.fullmatch(value) else None


def names(value: Any) -> frozenset[str] | None:
    """A list of nothing but names."""
    if not isinstance(value, list) or any(name(one) is None for one in value):
        return None
    return frozenset(value)


def of_iso(value: Any) -> datetime | None:
    """A time in ISO 8601, in UTC; so is one without an offset."""
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
        return at and _reckonable(at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC))
    except (ValueError, OverflowError):
        return None


def of_seconds(value: Any) -> datetime | None:
    """A time in whole seconds since 1970."""
    try:
        return _reckonable(datetime.fromtimestamp(value, UTC)) if type(value) is int else None  # a bool is an int, too
    except (ValueError, OverflowError, OSError):
        return None


def _reckonable(at: datetime) -> datetime | None:
    """Neither end of the calendar: a second more or less has to be a date as well."""
    return at if 1970 <= at.year < 9999 else None
