"""Pages of a list, newest (or soonest) first: found by an index, however many rows lie behind them.

Conditions without an index are applied to a stretch of the list, and a page says how far it has looked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from operator import gt, lt
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, and_, asc, desc, or_, select

Record = dict[str, Any]
STRETCH = 10_000  # rows that one web page examines for conditions without an index
Also = Callable[[Any], Sequence[ColumnElement[bool]]]  # further conditions, on columns of a table or of a stretch of it


@dataclass(frozen=True, kw_only=True)
class Place:
    """The end of a page: what follows is older, or equally old with a lower id.

    In the audit, *at* is a ledger number. Among revocations *id* is one: those of one moment are in the order in which
    they took effect. In a list with the soonest first, what follows is later, or at the same time with a higher id.
    """

    at: datetime | int
    id: str | int


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some rows, and where to go on; None: these were the last."""

    rows: Sequence[Record]
    next: Place | None
    looked_through: int | None = None  # rows examined, if the stretch ended before the page was full


@dataclass(frozen=True, kw_only=True)
class Turn:
    """The request for a page."""

    limit: int | None  # None: all rows
    after: Place | None = None
    stretch: int | None = None  # rows examined for conditions without an index; None: all of them


EVERY = Turn(limit=None)


def rows_of(connection: Connection, statement: Select[Any]) -> list[Record]:
    """Return every row as a mapping."""
    return [dict(row._mapping) for row in connection.execute(statement)]  # noqa: SLF001 - its documented name


def page_of(
    connection: Connection,
    statement: Select[Any],
    turn: Turn,
    *,
    at: Column[Any],
    id: Column[Any],
    also: Also = lambda columns: (),
    soonest_first: bool = False,
) -> Page:
    """Return one page of *statement*, whose conditions have an index; *also*: conditions that have none."""
    follows, in_order = (gt, asc) if soonest_first else (lt, desc)
    if turn.after is not None:
        beyond: ColumnElement[bool] = or_(
            follows(at, turn.after.at), and_(at == turn.after.at, follows(id, turn.after.id))
        )
        statement = statement.where(at >= turn.after.at if soonest_first else at <= turn.after.at, beyond)
    further = also(statement.selected_columns)
    if turn.stretch is None:
        statement = statement.where(*further)
    ordered = statement.order_by(in_order(at), in_order(id))
    if not further or turn.stretch is None:
        return _full(rows_of(connection, ordered.limit(_one_more(turn))), turn, at, id)
    stretch = ordered.limit(turn.stretch).subquery()
    found = select(stretch).where(*also(stretch.c))
    first = found.order_by(in_order(stretch.c[at.name]), in_order(stretch.c[id.name]))
    page = _full(rows_of(connection, first.limit(_one_more(turn))), turn, at, id)
    if page.next is not None:
        return page
    last = rows_of(connection, ordered.with_only_columns(at, id).offset(turn.stretch - 1).limit(1))
    if not last:
        return page
    return Page(rows=page.rows, next=place_of(last[0], at, id), looked_through=turn.stretch)


def together(pages: Sequence[Page], turn: Turn, *, at: Column[Any], id: Column[Any]) -> Page:
    """Merge pages of several statements, read for the same turn, into one page of their combined list.

    A row found by several appears once. The page reaches no further than the page that reached least far.
    """
    rows = {row[id.name]: row for page in pages for row in page.rows}
    newest = sorted(rows.values(), key=lambda row: (row[at.name], row[id.name]), reverse=True)
    ends = [((page.next.at, page.next.id), page) for page in pages if page.next is not None]
    if not ends:
        return _full(newest, turn, at, id)
    end, least = max(ends, key=lambda one: one[0])
    page = _full([row for row in newest if (row[at.name], row[id.name]) >= end], turn, at, id)
    return page if page.next is not None else replace(least, rows=page.rows)


def equal(**wanted: object) -> Also:
    """Return conditions that columns of these names equal the values that are not None."""
    return lambda columns: [columns[name] == value for name, value in wanted.items() if value is not None]


def _one_more(turn: Turn) -> int | None:
    """Return one more than the page holds, to see whether there are more."""
    return None if turn.limit is None else turn.limit + 1


def _full(found: list[Record], turn: Turn, at: Column[Any], id: Column[Any]) -> Page:
    rows = found[: turn.limit]
    return Page(rows=rows, next=place_of(rows[-1], at, id) if len(found) > len(rows) else None)


def place_of(row: Record, at: Column[Any], id: Column[Any]) -> Place:
    return Place(at=row[at.name], id=row[id.name])
