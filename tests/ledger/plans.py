"""The statements of a read, or of a write, and what the database says of how it would run them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, event

from identity.sql.store import Store
from pipeline.db.database import Database


def plans(database: Database, read: Callable[[Connection], object], *, large: bool = False) -> list[str]:
    """The plan of each SELECT that *read* runs, in the database's own words; *large*: as for tables of any size."""
    return plans_of(database, lambda: database.read(read), large=large)


def plans_of(database: Store, act: Callable[[], object], *, large: bool = False) -> list[str]:
    """The plan of each SELECT that *act* has the database run, reading or writing, after what it has written."""
    selects = [one for one in statements_of(act) if one[0].lstrip().lower().startswith(("select", "with"))]

    def explain(connection: Connection) -> list[str]:
        if large and connection.dialect.name == "postgresql":
            connection.exec_driver_sql("set local enable_seqscan = off")
        word = "explain query plan" if connection.dialect.name == "sqlite" else "explain"
        return [
            "\n".join(str(row[-1]) for row in connection.exec_driver_sql(f"{word} {statement}", parameters))
            for statement, parameters in selects
        ]

    return database.read(explain)


def kept_plans(database: Database, act: Callable[[], object]) -> dict[str, str]:
    """Each statement of *act*, and its plan as PostgreSQL keeps it for any values, for tables of any size."""
    planned = ("select", "with", "update", "insert", "delete")
    statements = [one for one, _ in statements_of(act) if one.lstrip().lower().startswith(planned)]

    def explain(connection: Connection) -> dict[str, str]:
        connection.exec_driver_sql("set local plan_cache_mode = force_generic_plan")
        connection.exec_driver_sql("set local enable_seqscan = off")
        told = {}
        for number, statement in enumerate(statements):
            names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
            numbered = statement
            for place, name in enumerate(names, start=1):
                numbered = numbered.replace(f"%({name})s", f"${place}")
            connection.exec_driver_sql(f"prepare kept_{number} as {numbered}")
            values = f"({', '.join('null' for _ in names)})" if names else ""
            rows = connection.exec_driver_sql(f"explain execute kept_{number}{values}")
            told[statement] = "\n".join(row[0] for row in rows)
            connection.exec_driver_sql(f"deallocate kept_{number}")  # the connection goes on to the next who asks
        return told

    return database.read(explain)


def statements_of(act: Callable[[], object]) -> list[tuple[str, Any]]:
    """What *act* has the databases run, with the parameters."""
    heard: list[tuple[str, Any]] = []

    def hear(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        heard.append((statement, parameters))

    # Of every engine: on SQLite the writer has one of its own.
    event.listen(Engine, "before_cursor_execute", hear)
    try:
        act()
    finally:
        event.remove(Engine, "before_cursor_execute", hear)
    return heard
