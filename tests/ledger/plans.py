"""What the database says of how it would run the statements of a read or a write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event

from pipeline.database import Database


def plans(database: Database, fn: Callable[[Connection], object], *, writes: bool = False) -> list[str]:
    """The plan of each SELECT that *fn* runs, in the database's own words. *writes*: in a transaction that commits."""
    with _heard() as statements:
        if writes:
            database.write(fn)
        else:
            database.read(fn)

    def explain(connection: Connection) -> list[str]:
        word = "explain query plan" if connection.dialect.name == "sqlite" else "explain"
        return [
            "\n".join(str(row[-1]) for row in connection.exec_driver_sql(f"{word} {statement}", parameters))
            for statement, parameters in statements
        ]

    return database.read(explain)


@contextmanager
def _heard() -> Iterator[list[tuple[str, Any]]]:
    """On whichever engine: what writes may have one of its own."""
    heard: list[tuple[str, Any]] = []

    def hear(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if statement.lstrip().lower().startswith(("select", "with")):
            heard.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", hear)
    yield heard
    event.remove(Engine, "before_cursor_execute", hear)
