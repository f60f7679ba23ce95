"""The ledger: reachable, taking writes, at this version's tables, and durable."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, text

from deploy.checkup.finding import Finding, ok, unknown, wrong
from deploy.installation import Installation
from pipeline.ledger import queries
from pipeline.ledger.rehearsal import rehearse
from pipeline.sqlite_file import TookTooLong, faults, what_to_do

_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "afs"})  # no shared memory for SQLite's WAL
_CONNECTIONS = 34 * 5  # one process of each kind
_POSTGRESQL = 150_000
_COLLATION = """
    select datname as name, datcollversion as of_indexes, pg_database_collation_actual_version(oid) as of_server
    from pg_database where datname = current_database()
"""
_TOLD = 5
_LOOK = timedelta(seconds=10)  # whoever asks for a checkup waits for it


def ledger(at: Installation) -> Iterator[Finding]:
    at.read(queries.all_tenants)
    at.write(rehearse)
    from pipeline.migrations.shape import lacks  # needs Alembic, and with it half a second

    if lacking := at.read(lacks):
        says = f"the ledger is not as its migrations made it: {'; '.join(lacking[:_TOLD])}"
        yield wrong(
            "ledger", f"{says}. Was a restore broken off, or did it go on after an error? See docs/operations.md"
        )
    told = list(_of_file(at) if at.settings.on_sqlite else _of_server(at))
    yield ok("ledger", "reachable and written to, at this version's tables")
    yield from told or [ok("durability", "a commit that was answered survives a loss of power")]


def _of_file(at: Installation) -> Iterator[Finding]:
    path = Path(at.settings.ledger_url().removeprefix("sqlite:///"))
    mode = at.read(lambda c: c.execute(text("pragma journal_mode")).scalar_one())
    if mode != "wal":
        yield wrong("durability", f"the ledger's journal_mode is {mode}: something else opened it; restart everything")
    if (kind := _file_system(path.resolve(), Path("/proc/self/mounts"))) in _REMOTE:
        yield wrong("durability", f"{path} lies on {kind}, where SQLite's locks do not hold: use a local disk")
    if path.stat().st_mode & stat.S_IRWXO:
        yield wrong("durability", f"everybody on this machine may look into {path}: run `chmod 600 '{path}'`")
    try:
        if found := faults(path, fully=False, within=_LOOK):
            yield wrong("durability", f"{what_to_do(path)}. {found[0]}")
    except TookTooLong:
        says = f"{path} was not looked through for damage, which takes over {_LOOK.seconds} s: run `aswhom db check`"
        yield unknown("durability", says)


def _file_system(path: Path, mounts: Path) -> str:
    """The kind of file system that *path* is on, as Linux names it; elsewhere nothing."""
    if not mounts.exists():
        return ""
    rows = [line.split() for line in mounts.read_text(encoding="utf-8").splitlines()]
    found = {Path(row[1].encode().decode("unicode_escape")): row[2] for row in rows}
    return next((found[folder] for folder in path.parents if folder in found), "")


def _of_server(at: Installation) -> Iterator[Finding]:
    is_ = at.read(_settings)
    for name in ("fsync", "full_page_writes"):
        if is_[name] != "on":
            yield wrong(
                "durability", f"PostgreSQL's {name} is {is_[name]}, and a loss of power may lose the ledger: set it on"
            )
    if is_["synchronous_commit"] == "off":
        says = "PostgreSQL's synchronous_commit is off: it answers before a commit is kept; set it on for this database"
        yield wrong("durability", says)
    if int(is_["server_version_num"]) < _POSTGRESQL:
        yield wrong("versions", f"PostgreSQL {is_['server_version']} is not tested with this version: use 15 or later")
    yield from _of_text(at.read(_text_kept), is_["server_encoding"])
    if int(is_["max_connections"]) < _CONNECTIONS:
        says = f"PostgreSQL takes {is_['max_connections']} connections, and each process holds up to 34"
        yield wrong("ledger", f"{says}: set max_connections to {_CONNECTIONS} or more")


def _of_text(kept: Row[Any], encoding: str) -> Iterator[Finding]:
    if encoding != "UTF8":
        yield wrong(
            "ledger", f"the database's encoding is {encoding}, in which names may fail: move it into one in UTF8"
        )
    if kept.of_indexes is not None and kept.of_indexes != kept.of_server:
        why = f"the indexes were made by collation version {kept.of_indexes}, and the server sorts by {kept.of_server}"
        cure = f'`reindex database "{kept.name}"`, then `alter database "{kept.name}" refresh collation version`'
        miss = "a look-up may miss what is there, a revocation too"
        yield wrong("ledger", f"{why}: {miss}. With every process stopped run {cure}")


def _text_kept(connection: Connection) -> Row[Any]:
    return connection.execute(text(_COLLATION)).one()


def _settings(connection: Connection) -> dict[str, str]:
    names = (
        "fsync full_page_writes synchronous_commit server_version_num server_version max_connections server_encoding"
    )
    ask = text("select current_setting(:name)")
    return {name: connection.execute(ask, {"name": name}).scalar_one() for name in names.split()}
