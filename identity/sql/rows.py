"""Inserts that report whether the row already existed, on both databases; and access to joined rows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table
from sqlalchemy.dialects import postgresql, sqlite

from identity.sql.prepared import Prepared


def insert_or(connection: Connection, table: Table) -> Any:
    """Return the dialect's INSERT, with `on_conflict_do_nothing`, `on_conflict_do_update` and a valid `rowcount`."""
    return insert_for(connection.dialect.name, table)


def insert_for(dialect: str, table: Table) -> Any:
    """Return the INSERT of `insert_or` by the dialect's name, for a statement that is built once."""
    insert = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    # SQLAlchemy keeps an INSERT's row count only on request; otherwise it is -1 on PostgreSQL.
    return insert.execution_options(preserve_rowcount=True)


def insert_new(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert *values* unless a unique key has them already; True if it inserted."""
    return _insert_new(connection.dialect.name, table).run(connection, values).rowcount == 1


@cache
def _insert_new(dialect: str, table: Table) -> Prepared:
    return Prepared(insert_unless_there(dialect, table))


@cache
def insert_unless_there(dialect: str, table: Table) -> Any:
    """Return an INSERT that skips rows whose unique key is taken; `rowcount` counts those inserted."""
    return insert_for(dialect, table).on_conflict_do_nothing()


def columns_of(table: Table) -> list[ColumnElement[Any]]:
    """Return the columns of *table*, labelled with its name, for a SELECT over several tables."""
    return [column.label(f"{table.name}_{column.name}") for column in table.c]


class Part:
    """A view of one table's columns in a joined row of `columns_of`, as that table's own row would be."""

    __slots__ = ("_name", "_row")

    def __init__(self, row: Row[Any], table: Table) -> None:
        self._row = row
        self._name = table.name

    def __getattr__(self, column: str) -> Any:
        return getattr(self._row, f"{self._name}_{column}")
