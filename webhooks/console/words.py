"""Formatting of times, ids and durations on pages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from markupsafe import Markup

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def span(duration: timedelta) -> str:
    """Format a duration roughly: `3 min`, `2 d`."""
    seconds = abs(duration.total_seconds())
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "0 s"


def when(moment: datetime | None, now: datetime) -> Markup | str:
    """Format a moment relative to now, with the exact time as a tooltip."""
    if moment is None:
        return "–"
    said = f"in {span(moment - now)}" if moment > now else f"{span(now - moment)} ago"
    return _time(moment, said)


def listed(moment: datetime | None, now: datetime) -> Markup | str:
    """Format a moment for a list: to the second in UTC, for finding it in a log, and how long ago it was."""
    if moment is None:
        return "–"
    at = _time(moment, f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
    return Markup("{} · {}").format(at, when(moment, now))


def exactly(moment: datetime | None) -> Markup | str:
    """Format a moment to the millisecond, in UTC."""
    return "–" if moment is None else _time(moment, f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC")


def _time(moment: datetime, said: str) -> Markup:
    utc = moment.astimezone(UTC)
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        utc.isoformat(timespec="milliseconds"), f"{utc:%Y-%m-%d %H:%M:%S}", said
    )


def short(id: str) -> str:
    """Shorten an id for a list to its kind and its random end."""
    kind, separator, rest = id.partition("_")
    return f"{kind}_…{rest[-6:]}" if separator and len(rest) > 12 else id
