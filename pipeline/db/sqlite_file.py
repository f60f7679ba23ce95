"""The file of the embedded ledger: whether it is whole, and a copy of it that is.

SQLite notices damage when it reads the page that has it, and copies it as readily as anything else.
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
_PRIMARY = (
    0xFF  # of an extended code: https://www.sqlite.org/rescode.html#primary_result_codes_versus_extended_result_codes
)
_STEPS = 10_000  # of SQLite's machine, between two looks at the clock
_TOLD = 20  # faults: whoever has more restores a backup as well


class TookTooLong(Exception):
    """The file was not looked through within the time that was given."""


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What a copy has."""

    size: int  # bytes
    revision: str | None  # of its tables
    link: int  # the last of the audit's chain; 0: there is none


def is_damage(error: BaseException | None) -> bool:
    """Whether SQLite, or SQLAlchemy for it, says by *error* that the file is damaged or is no database."""
    fault = getattr(error, "orig", error)
    return (getattr(fault, "sqlite_errorcode", 0) & _PRIMARY) in _DAMAGE


def what_to_do(path: Path) -> str:
    return (
        f"the ledger's file {path} is damaged: stop every process, keep the file and those beside it, and restore a "
        "backup (docs/operations.md); `aswhom db check` says what is wrong with it"
    )


def log_beside(path: Path) -> int:
    """How many bytes of changes lie beside the file, which are taken for its own as soon as it is opened."""
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size
    except FileNotFoundError:
        return 0


def faults(path: Path, *, fully: bool = True, within: timedelta | None = None) -> list[str]:
    """What is wrong with the file, in SQLite's words; nothing where it is whole.

    *fully*: also whether each index agrees with its table: an index that misses a row of `scopes` hides a revocation.
    Raises TookTooLong, and Unavailable where the file cannot be read at all.
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
            # What Python's module says by itself, of a text that is none, has no code.
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                raise TookTooLong from error
            raise Unavailable(f"the ledger {path} cannot be read: {error}") from error


def copy_whole(path: Path, to: Path) -> Copied:
    """Copy the ledger beside those who write it into the empty file *to*, and look through the copy.

    Raises Misconfigured for one that is damaged, and Unavailable where it cannot be read or written.
    """
    try:
        with closing(_opened(path, "ro")) as source, closing(_opened(to, "rw")) as copy:
            source.backup(copy)  # in one step: by pages it would begin anew with each write of another process
            copy.execute("pragma journal_mode=delete")  # one file, which needs none beside it
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
    """Raises Unavailable; no ledger is made where there is none."""
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
