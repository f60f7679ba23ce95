"""Order and range of a list, from the query string."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TypeVar

from flask import request

from deploy.sandbox.github.bearer import Refused
from deploy.sandbox.github.model import Comment, Item

Row = TypeVar("Row", Item, Comment)


def ordered(items: Iterable[Item]) -> list[Item]:
    """Select by `state`, open by default, and sort by `sort` and `direction`, newest first by default."""
    state = request.args.get("state", "open")
    items = [item for item in items if state in (item.state, "all")]
    sort = request.args.get("sort", "created")
    backwards = request.args.get("direction", "desc") == "desc"
    if sort == "updated":
        return sorted(items, key=lambda item: (item.updated_at, item.number), reverse=backwards)
    if sort == "comments":
        return sorted(items, key=lambda item: (len(item.comments), item.number), reverse=backwards)
    return sorted(items, key=lambda item: item.number, reverse=backwards)


def since(rows: Iterable[Row]) -> list[Row]:
    """Return the rows updated at or after `since`."""
    given = request.args.get("since")
    if given is None:
        return list(rows)
    try:
        moment = datetime.fromisoformat(given)
    except ValueError as error:
        raise Refused(422, "Validation Failed") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return [row for row in rows if row.updated_at >= moment]
