"""Alembic migrations of the whole ledger; `upgrade` is the entry for everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
_LOCK_NOT_AVAILABLE = "55P03"
_INSUFFICIENT_PRIVILEGE = "42501"

#: Called before each revision with its name, its position among those due, and their number.
Begins = Callable[[str, int, int], None]


def _unwatched(_revision: str, _number: int, _of: int) -> None:
    """Ignore progress."""


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


def upgrade_at(settings: DatabaseSettings, *, begins: Begins = _unwatched) -> None:
    """Upgrade the ledger named by *settings*, with a long timeout for the index of a large table."""
    database = open_database(replace(settings, turn_timeout=_PATIENCE))
    try:
        upgrade(database, begins=begins)
    finally:
        database.close()


def upgrade(database: Database, revision: str = "head", *, begins: Begins = _unwatched) -> None:
    """Bring the ledger to the newest revision, or to *revision*, in one write; a no-op if it is there.

    Raises Misconfigured for a ledger of a newer version, and for a role without the rights.
    """
    try:
        with refuse_without_rights():
            database.write(partial(upgrade_in, revision=revision, begins=begins))
    except Unavailable as fault:
        if sqlstate(fault.__cause__) != _LOCK_NOT_AVAILABLE:
            raise
        raise Unavailable(
            "another process holds a table that the upgrade needs, and nothing was upgraded: stop every process of an "
            "old Aswhom, and let a `pg_dump` end, before you repeat it"
        ) from fault


@contextmanager
def refuse_without_rights() -> Iterator[None]:
    """Raise Misconfigured if PostgreSQL refuses a statement of the block because its role may not do that."""
    try:
        yield
    except DBAPIError as error:
        if sqlstate(error) != _INSUFFICIENT_PRIVILEGE:
            raise
        raise without_right(str(error.orig).splitlines()[0]) from error


def without_right(lacking: str) -> Misconfigured:
    """Return the error for a role of PostgreSQL that lacks a right."""
    return Misconfigured(
        f"the role of ASWHOM_DATABASE_URL lacks a right ({lacking}), and nothing was changed: name the role that owns "
        "the database's tables (docs/security.md, Two roles in PostgreSQL)"
    )


def sqlstate(cause: BaseException | None) -> str | None:
    """Return PostgreSQL's error code, found without its driver, which SQLite installs lack."""
    return getattr(cause.orig, "sqlstate", None) if isinstance(cause, DBAPIError) else None


def upgrade_in(connection: Connection, *, revision: str = "head", begins: Begins = _unwatched) -> None:
    """Upgrade as `upgrade`, in a write transaction of the caller."""
    if connection.dialect.name == "postgresql":
        take_time_alone(connection)
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


def take_time_alone(connection: Connection) -> None:
    """Lift the time limits of a PostgreSQL transaction, and wait until no other upgrade or import runs."""
    # The timeouts for statements and pauses of a step do not suit the index of a large table, or values that a
    # migration computes itself.
    connection.execute(text("set local statement_timeout = 0"))
    connection.execute(text("set local idle_in_transaction_session_timeout = 0"))
    # No lock timeout while waiting for another upgrade. For tables there is one: a waiting lock request blocks others.
    connection.execute(text("set local lock_timeout = 0"))
    connection.execute(text("select pg_advisory_xact_lock(hashtext('aswhom migrations'))"))
    connection.execute(text("set local lock_timeout = '2s'"))


@cache
def _scripts() -> ScriptDirectory:
    """Read once: loading executes every migration's file, and the files do not change."""
    return ScriptDirectory.from_config(_config())
