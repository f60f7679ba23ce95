"""Inserts that say what happened when a row is already there, on both databases; and rows that were joined."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table
from sqlalchemy.dialects import postgresql, sqlite

from identity.sql.prepared import Prepared


def insert_or(connection: Connection, table: Table) -> Any:
    """The dialect's INSERT, with `on_conflict_do_nothing` and `on_conflict_do_update`; its `rowcount` tells."""
    return insert_for(connection.dialect.name, table)


def insert_for(dialect: str, table: Table) -> Any:
    """The INSERT of `insert_or`, by the dialect's name: for a statement that is built once."""
    insert = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    # SQLAlchemy keeps the count of an INSERT only when asked to: without this, PostgreSQL's is -1.
    return insert.execution_options(preserve_rowcount=True)


def insert_new(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert *values* unless a unique key has them already; whether it did."""
    return _insert_new(connection.dialect.name, table).run(connection, values).rowcount == 1


@cache
def _insert_new(dialect: str, table: Table) -> Prepared:
    return Prepared(insert_unless_there(dialect, table))


@cache
def insert_unless_there(dialect: str, table: Table) -> Any:
    """An INSERT of rows that does nothing for one whose unique key is taken; `rowcount` tells how many it was for."""
    return insert_for(dialect, table).on_conflict_do_nothing()


def columns_of(table: Table) -> list[ColumnElement[Any]]:
    """The columns of *table* for a SELECT of several tables, under names that tell them from those of the others."""
    return [column.label(f"{table.name}_{column.name}") for column in table.c]


class Part:
    """What a row of `columns_of` several tables has of one of them, as that table's own row would."""

    __slots__ = ("_name", "_row")

    def __init__(self, row: Row[Any], table: Table) -> None:
        self._row = row
        self._name = table.name

    def __getattr__(self, column: str) -> Any:
        return getattr(self._row, f"{self._name}_{column}")
