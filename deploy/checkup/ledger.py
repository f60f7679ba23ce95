"""Checks the ledger: reachable, writable, at this version's tables, and durable."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from sqlalchemy import text

from deploy.checkup import postgresql
from deploy.checkup.finding import Finding, Subject, ok, unknown, wrong
from deploy.installation import Installation
from pipeline.db.sqlite_file import TookTooLong, faults, what_to_do
from pipeline.ledger.rehearsal import rehearse
from pipeline.views import operator_queries

# These have no shared memory, which SQLite's WAL needs.
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "afs"})
_TOLD = 5
_LOOK = timedelta(seconds=10)  # an operator waits for the answer


def ledger(at: Installation) -> Iterator[Finding]:
    at.read(operator_queries.all_tenants)
    at.write(rehearse)
    from pipeline.migrations.shape import lacks  # imports Alembic, which takes half a second

    if lacking := at.read(lacks):
        says = f"the ledger is not as its migrations made it: {'; '.join(lacking[:_TOLD])}"
        yield wrong(
            Subject.LEDGER, f"{says}. Was a restore broken off, or did it go on after an error? See docs/operations.md"
        )
    told = list(_of_file(at) if at.settings.on_sqlite else postgresql.server(at))
    yield ok(Subject.LEDGER, "reachable and written to, at this version's tables")
    yield from told or [ok(Subject.DURABILITY, "a commit that was answered survives a loss of power")]


def _of_file(at: Installation) -> Iterator[Finding]:
    path = Path(at.settings.ledger_url().removeprefix("sqlite:///"))
    mode = at.read(lambda c: c.execute(text("pragma journal_mode")).scalar_one())
    if mode != "wal":
        yield wrong(
            Subject.DURABILITY, f"the ledger's journal_mode is {mode}: something else opened it; restart everything"
        )
    if (kind := _file_system(path.resolve(), Path("/proc/self/mounts"))) in _REMOTE:
        yield wrong(Subject.DURABILITY, f"{path} lies on {kind}, where SQLite's locks do not hold: use a local disk")
    if path.stat().st_mode & stat.S_IRWXO:
        yield wrong(Subject.DURABILITY, f"everybody on this machine may look into {path}: run `chmod 600 '{path}'`")
    try:
        if found := faults(path, fully=False, within=_LOOK):
            yield wrong(Subject.DURABILITY, f"{what_to_do(path)}. {found[0]}")
    except TookTooLong:
        says = f"{path} was not looked through for damage, which takes over {_LOOK.seconds} s: run `aswhom db check`"
        yield unknown(Subject.DURABILITY, says)


def _file_system(path: Path, mounts: Path) -> str:
    """Return the type of the file system *path* is on, as Linux names it, or an empty string elsewhere."""
    if not mounts.exists():
        return ""
    rows = [line.split() for line in mounts.read_text(encoding="utf-8").splitlines()]
    found = {Path(row[1].encode().decode("unicode_escape")): row[2] for row in rows}
    return next((found[folder] for folder in path.parents if folder in found), "")
