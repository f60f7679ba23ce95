"""How what was made at GitHub is found again: a marker in its body, and lists of what changed lately.

Comments and issues are recovered by a marker, an HTML comment at the end of the body. The probe lists what changed
since the step opened and says "no effect" only when it has seen all of it; a page too full to be sure stays unknown.
It lists rather than searches: the search index lags and would miss what was just made.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pipeline.action import Call

PAGE = 100  # the most a list answers at once

# How far GitHub's clock may be behind ours before a probe overlooks what was just made.
SKEW = timedelta(minutes=10)


def marked(body: str, call: Call) -> str:
    """*body* with the step's marker, which GitHub does not show."""
    return f"{body}\n\n{call.marker}"


def since(call: Call) -> datetime:
    """From when on a list holds what the step may have made."""
    return (call.opened_at.astimezone(UTC) - SKEW).replace(microsecond=0)


def stamp(moment: datetime) -> str:
    """As GitHub's parameters have it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
