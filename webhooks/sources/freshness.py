"""Replay protection by signed timestamps."""

from __future__ import annotations

from datetime import datetime, timedelta

from webhooks.sources.reading import Fault, Refusal


def stale(now: datetime, sent_at: float, tolerance: timedelta, *, late: timedelta = timedelta()) -> Refusal | None:
    """Return a Refusal if it was signed more than *tolerance* ago or ahead, otherwise None. Verify the signature first.

    *late*: a larger allowed age, for senders whose replays are recognised by other means.

    *sent_at* is in seconds since 1970, as the sender gave it: it need not be a valid date.
    """
    away = now.timestamp() - sent_at
    most = (max(tolerance, late) if away > 0 else tolerance).total_seconds()
    if abs(away) <= most:
        return None
    return Refusal(
        fault=Fault.STALE,
        detail=f"The request is signed, but {abs(away):.0f} s in the {'past' if away > 0 else 'future'}, and more "
        f"than {most:.0f} s is refused as a replay. If it is new, look for clock skew here.",
    )
