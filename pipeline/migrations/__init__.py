"""Alembic migrations of the whole ledger; `upgrade` is what everything else calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import cache, partial
from itertools import islice
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from identity.errors import Misconfigured, Unavailable
from pipeline.db.database import Database, DatabaseSettings, open_database
from pipeline.ledger.revision import of_a_newer_version

_PATIENCE = timedelta(minutes=10)

#: Hears of each revision before it is made: its name, its number among those that are due, and how many are.
Begins = Callable[[str, int, int], None]


def _unwatched(_revision: str, _number: int, _of: int) -> None:
    """Nobody looks on."""


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


def upgrade_at(settings: DatabaseSettings, *, begins: Begins = _unwatched) -> None:
    """`upgrade` of the ledger that *settings* say, with patience for the index of a large table."""
    database = open_database(replace(settings, turn_timeout=_PATIENCE))
    try:
        upgrade(database, begins=begins)
    finally:
        database.close()


def upgrade(database: Database, revision: str = "head", *, begins: Begins = _unwatched) -> None:
    """Bring the ledger to the newest revision, or to *revision*, in one write; a no-op when it is there.

    Raises Misconfigured for a ledger of a newer version.
    """
    try:
        database.write(partial(_upgrade, revision=revision, begins=begins))
    except Unavailable as fault:
        if not _was_locked(fault.__cause__):
            raise
        raise Unavailable(
            "another process holds a table that the upgrade needs, and nothing was upgraded: stop every process of an "
            "old Aswhom, and let a `pg_dump` end, before you repeat it"
        ) from fault


def _was_locked(cause: BaseException | None) -> bool:
    """Whether PostgreSQL gave no lock in time (lock_not_available). Its driver is not there for SQLite alone."""
    return isinstance(cause, DBAPIError) and getattr(cause.orig, "sqlstate", None) == "55P03"


def _upgrade(connection: Connection, *, revision: str, begins: Begins) -> None:
    if connection.dialect.name == "postgresql":
        # The limit of a step's statements is not for the index of a large table, nor that of its pauses for what a
        # migration computes itself.
        connection.execute(text("set local statement_timeout = 0"))
        connection.execute(text("set local idle_in_transaction_session_timeout = 0"))
        # Nor is that of their locks for another's upgrade. For the tables it holds: who waits for one keeps others out.
        connection.execute(text("set local lock_timeout = 0"))
        connection.execute(text("select pg_advisory_xact_lock(hashtext('aswhom migrations'))"))
        connection.execute(text("set local lock_timeout = '2s'"))
    current = MigrationContext.configure(connection).get_current_revision()
    if said := of_a_newer_version(current):
        raise Misconfigured(said)
    due = [script.revision for script in _scripts().iterate_revisions(revision, current or "base")][::-1]
    coming = iter(enumerate(due, start=1))

    def next_begins(**_applied: object) -> None:
        for number, name in islice(coming, 1):
            begins(name, number, len(due))

    next_begins()
    config = _config()
    config.attributes |= {"connection": connection, "applied": next_begins}
    command.upgrade(config, revision)


@cache
def _scripts() -> ScriptDirectory:
    """Read from every migration's file, which are what they are."""
    return ScriptDirectory.from_config(_config())
