"""Inserts that leave a row alone when it is already there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert_new(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert *values* unless a unique key has them already; whether it did."""
    if connection.dialect.name == "postgresql":
        return connection.execute(postgresql.insert(table).on_conflict_do_nothing(), values).rowcount == 1
    return connection.execute(sqlite.insert(table).on_conflict_do_nothing(), values).rowcount == 1
