"""On which of the two databases a test runs in `make test`, and how it opens one."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.db.database import Database, DatabaseSettings, open_database

# For what takes long and hardly depends on the database: PostgreSQL's turn is in `make test-slow`. Of a test, or of
# all those of a module that are to have a ledger of each kind.
MOSTLY_SQLITE = pytest.mark.mostly_sqlite

# The disk of a machine that others use too may take longer for one commit than a caller in production waits.
TURN = timedelta(seconds=30)

# For what no database has a part in, where the fixtures come with one.
ONLY_SQLITE = pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)

_EACH = pytest.mark.parametrize(
    "ledger_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)


def share_out(metafunc: pytest.Metafunc) -> None:
    """Give a test that is marked so its ledgers, as if it had said them itself."""
    marked = metafunc.definition.get_closest_marker(MOSTLY_SQLITE.name)
    if marked and "ledger_url" in metafunc.fixturenames:
        metafunc.definition.add_marker(_EACH)


def open_ledger(url: str, **more: Any) -> Database:
    """As a process of its own has it, where the time it waits for its turn is not what is tested."""
    return open_database(DatabaseSettings(url=url, turn_timeout=TURN, **more))


@contextmanager
def turn_taken(database: Database) -> Iterator[None]:
    """On SQLite somebody has the turn meanwhile, as each process has that waits for the gate."""
    url = database.engine.url
    if url.get_backend_name() != "sqlite":
        yield
        return
    with Path(f"{url.database}.turn").open("r+", encoding="ascii") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield  # closing it lets go
