"""Integrity checks of the embedded ledger's file, and verified copies of it.

SQLite notices damage only when it reads the damaged page, and copies it like anything else.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from identity.errors import Misconfigured, Unavailable

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# The primary part of an extended code:
# https://www.sqlite.org/rescode.html#primary_result_codes_versus_extended_result_codes
_PRIMARY = 0xFF
_STEPS = 10_000  # SQLite VM instructions between two looks at the clock
_TOLD = 20  # faults reported; with more than these, a backup is restored anyway


class TookTooLong(Exception):
    """The file was not checked completely within the given time."""


@dataclass(frozen=True, kw_only=True)
class Copied:
    """Facts about a copy."""

    size: int  # bytes
    revision: str | None  # of its tables
    link: int  # the last link of the audit's chain; 0: there is none


def is_damage(error: BaseException | None) -> bool:
    """True if *error*, from SQLite directly or through SQLAlchemy, means that the file is damaged or no database."""
    fault = getattr(error, "orig", error)
    return (getattr(fault, "sqlite_errorcode", 0) & _PRIMARY) in _DAMAGE


def what_to_do(path: Path) -> str:
    return (
        f"the ledger's file {path} is damaged: stop every process, keep the file and those beside it, and restore a "
        "backup (docs/operations.md); `aswhom db check` says what is wrong with it"
    )


def log_beside(path: Path) -> int:
    """Return the size in bytes of the write-ahead log beside the file, which counts as part of it once opened."""
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size
    except FileNotFoundError:
        return 0


def faults(path: Path, *, fully: bool = True, within: timedelta | None = None) -> list[str]:
    """Return the file's faults in SQLite's words; none if it is intact.

    *fully* also checks that each index agrees with its table: an index that misses a row of `scopes` hides a
    revocation. Raises TookTooLong, or Unavailable if the file cannot be read at all.
    """
    with closing(_opened(path, "ro")) as connection:
        if within is not None:
            end = time.monotonic() + within.total_seconds()
            connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
        try:
            return list(_faults(connection, "integrity_check" if fully else "quick_check"))
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                return [str(error)]
            # Errors that Python's module raises by itself, such as for undecodable text, have no code.
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                raise TookTooLong from error
            raise Unavailable(f"the ledger {path} cannot be read: {error}") from error


def copy_whole(path: Path, to: Path) -> Copied:
    """Copy a ledger in use into the empty file *to*, and check the copy.

    Raises Misconfigured if it is damaged, and Unavailable if it cannot be read or written.
    """
    try:
        with closing(_opened(path, "ro")) as source, closing(_opened(to, "rw")) as copy:
            source.backup(copy)  # in one step: a copy by pages would restart with each write of another process
            copy.execute("pragma journal_mode=delete")  # a single file that needs no other beside it
            if found := list(_faults(copy, "integrity_check")):
                raise Misconfigured(f"{what_to_do(path)}. No copy was kept: {'; '.join(found)}")
            (revision,) = copy.execute("select max(version_num) from alembic_version").fetchone()
            (link,) = copy.execute("select coalesce(max(seq), 0) from audit_seals").fetchone()
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            raise Misconfigured(f"{what_to_do(path)}. No copy was kept: {error}") from error
        raise Unavailable(f"the ledger {path} cannot be copied: {error}") from error
    return Copied(size=to.stat().st_size, revision=revision, link=link)


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    """Open the file without creating it. Raises Unavailable."""
    try:
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None)
    except sqlite3.OperationalError as error:
        raise Unavailable(f"{path} cannot be opened: {error}") from error


def _faults(connection: sqlite3.Connection, check: str) -> Iterator[str]:
    for (said,) in connection.execute(f"pragma {check}({_TOLD})"):
        if said != "ok":
            yield said
    for table, row, other, _ in connection.execute("pragma foreign_key_check").fetchmany(_TOLD):
        yield f"row {row} of {table} refers to a row of {other} that is not there"
