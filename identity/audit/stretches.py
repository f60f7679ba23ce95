"""Stretches of the audit by ledger number, so that no single statement reads many years of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from sqlalchemy import ColumnElement, Connection, func, select, true

from identity.audit.tables import audit
from identity.sql.store import Store

_ROWS = 10_000  # in a stretch, or more if several share its last number
_HIGHEST = 2**63 - 1  # non-numbers, which SQLite permits, sort above it


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """The rows whose number is greater than *after* and at most *upto*."""

    after: int | None  # None: from the first
    upto: int | None  # None: to the last

    def has(self) -> ColumnElement[bool]:
        number = audit.c.number
        behind = true() if self.after is None else number > self.after
        return behind if self.upto is None else behind & (number <= self.upto)


def stretches(store: Store, *, after: int | None = None, rows: int = _ROWS) -> Iterator[Stretch]:
    """Yield stretches of the rows after that number, or of all, in ascending order, each found in its own read."""
    while True:
        upto = store.read(partial(_end, after=after, rows=rows))
        yield Stretch(after=after, upto=upto)
        if upto is None:
            return
        after = upto


def number_of_rows(connection: Connection, *, stretch: Stretch) -> int:
    """Return how many rows the stretch has. O(its rows), by the index of their numbers."""
    return connection.execute(select(func.count()).select_from(audit).where(stretch.has())).scalar_one()


def _end(connection: Connection, *, after: int | None, rows: int) -> int | None:
    number = audit.c.number
    behind = Stretch(after=after, upto=_HIGHEST).has()
    return connection.execute(select(number).where(behind).order_by(number).offset(rows - 1).limit(1)).scalar()
