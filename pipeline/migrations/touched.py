"""Forecast of an upgrade: the tables that each due revision has to go through, found on an empty ledger in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.pool import StaticPool

from pipeline.migrations import upgrade_in

# Statements that take as long as a table is large; those that only add a column do not. `_alembic_tmp_` begins the name
# of the copy that Alembic makes of a table that SQLite cannot alter.
_GOES_THROUGH = re.compile(
    r'\b(?:from|join|update|insert\s+into|create\s+(?:unique\s+)?index\s+\S+\s+on)\s+"?(?:_alembic_tmp_)?(\w+)',
    re.IGNORECASE,
)
_CREATES = re.compile(r'\s*create\s+table\s+"?(\w+)', re.IGNORECASE)
_TRIGGER = re.compile(r"\s*create\s+trigger\s", re.IGNORECASE)
_NOT_OURS = {"alembic_version", "sqlite_master", "pragma_table_info"}


def touched(since: str | None) -> dict[str, list[str]]:
    """Return the due revisions of a ledger at *since*, each with the tables that it reads, rewrites or indexes.

    A table that did not exist before is left out. On PostgreSQL a table that SQLite has to copy may only be altered.
    """
    found: dict[str, set[str]] = {}
    new: set[str] = set()

    def begins(revision: str, _number: int, _of: int) -> None:
        found[revision] = set()

    def runs(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if created := _CREATES.match(statement):
            new.add(created[1])
        if found:
            found[next(reversed(found))].update(_tables(statement))

    engine = create_engine("sqlite://", poolclass=StaticPool)
    try:
        with engine.begin() as connection:
            if since is not None:
                upgrade_in(connection, revision=since)
            event.listen(engine, "before_cursor_execute", runs)
            upgrade_in(connection, begins=begins)
    finally:
        engine.dispose()
    return {revision: sorted(tables - new) for revision, tables in found.items()}


def _tables(statement: str) -> Iterator[str]:
    if _TRIGGER.match(statement):
        return iter(())
    return (name for name in _GOES_THROUGH.findall(statement) if name not in _NOT_OURS)
