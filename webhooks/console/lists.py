"""Query parameters of list pages: position, filters, and links to other views."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import urlencode

from flask import request, url_for

from identity.errors import BadInput
from pipeline.ledger.paging import Place, Turn
from webhooks.cursors import asked, place_in_time

ROWS = 50


def turn(read: Callable[[str], Place] = place_in_time) -> Turn:
    """Return the requested page. Raises BadInput for an invalid cursor."""
    try:
        return asked(ROWS, request.args.get("after") or None, read)
    except ValueError as error:
        raise BadInput("this page's address is incomplete: begin again with the first page") from error


def chosen(name: str, among: Sequence[str] | None = None) -> str | None:
    """Return the value of a filter; None: not set. Raises BadInput for a value that is not offered."""
    said = request.args.get(name, "").strip()
    if not said:
        return None
    if among is not None and said not in among:
        raise BadInput(f"there is no {name} {said[:40]!r} to choose")
    return said[:200]


def between() -> dict[str, datetime | None]:
    """Return the requested period from the form's fields, in UTC. Raises BadInput."""
    return {name: moment(name) for name in ("since", "until")}


def moment(name: str) -> datetime | None:
    """Return a time from the form's field, in UTC; None: not set. Raises BadInput."""
    said = request.args.get(name, "").strip()
    if not said:
        return None
    try:
        read = datetime.fromisoformat(said)
        return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadInput(f"{said[:40]!r} is no time: say it as 2026-11-28T14:02, in UTC") from error


def here(**changed: str | None) -> str:
    """Return the current page's address with its query changed; None removes a parameter, and the cursor is dropped."""
    query: Mapping[str, str] = {**request.args.to_dict(), "after": "", **{k: v or "" for k, v in changed.items()}}
    kept = {name: value for name, value in query.items() if value}
    at = url_for(request.endpoint or "", tenant=None, **(request.view_args or {}))  # the tenant stays in the query
    return f"{at}?{urlencode(kept)}" if kept else at
