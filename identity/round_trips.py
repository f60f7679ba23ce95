"""Statements that go to the ledger's server together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError


@contextmanager
def sent_together(connection: Connection) -> Iterator[None]:
    """Have what is executed in the block reach PostgreSQL in one round trip. On SQLite there is none to spare.

    Nobody in the block may ask what a statement answered, or for how many rows it was: it has been sent, no more. What
    the server refuses is raised, as `execute` would raise it, at the end of the block at the latest, perhaps by a later
    statement.
    """
    if connection.dialect.name != "postgresql":
        yield
        return
    driver: Any = connection.connection.driver_connection
    dbapi: Any = connection.dialect.loaded_dbapi
    try:
        with driver.pipeline():
            yield
    except dbapi.Error as error:
        lost = connection.dialect.is_disconnect(error, driver, None)
        if lost:
            connection.invalidate(error)
        raise DBAPIError.instance(
            None,
            None,
            error,
            dbapi.Error,
            hide_parameters=True,
            connection_invalidated=lost,
            dialect=connection.dialect,
        ) from error
