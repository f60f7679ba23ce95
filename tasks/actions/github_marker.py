"""Recovery at GitHub: a marker in the body, and lists of recent changes.

Comments and issues are found again by a marker, an HTML comment at the end of the body. The probe lists what changed
since the step opened, and says "no effect" only if it has seen all of it; if the page is full, the outcome stays
unknown. It lists rather than searches: the search index lags behind and would miss what was just created.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pipeline.action import Call

PAGE = 100  # the maximum page size of a list

# How far GitHub's clock may be behind ours before a probe overlooks what was just created.
SKEW = timedelta(minutes=10)


def marked(body: str, call: Call) -> str:
    """Return *body* with the step's marker, which GitHub does not display."""
    return f"{body}\n\n{call.marker}"


def since(call: Call) -> datetime:
    """Return the start of the period in which the step may have created something."""
    return (call.opened_at.astimezone(UTC) - SKEW).replace(microsecond=0)


def stamp(moment: datetime) -> str:
    """Format a time for GitHub's parameters."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
