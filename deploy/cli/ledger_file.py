"""`db backup` and `db check`: a verified copy of the SQLite ledger, and its integrity check."""

from __future__ import annotations

from pathlib import Path

import click

from deploy.cli.command import PROBLEM, command
from deploy.cli.output import Output
from deploy.cli.running import db
from deploy.installation import Installation


@command(db)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def backup(at: Installation, out: Output, file: Path) -> None:
    """Copy an SQLite ledger into a new FILE while processes run, and check the copy's integrity.

    If the ledger is damaged, nothing is written, and no earlier backup is touched.
    """
    from deploy.new_file import whole
    from identity.errors import BadInput
    from pipeline.db.sqlite_file import copy_whole

    if (path := at.ledger_file) is None:
        raise BadInput("the ledger is on PostgreSQL: back it up with its own tools, see docs/operations.md")
    with whole(file, at.ids("part")) as part:
        copied = copy_whole(path, part)
    told = {"file": str(file), "bytes": copied.size, "revision": copied.revision, "link": copied.link}
    sealed = f"its audit is sealed up to link {copied.link}"
    out.done(f"{file} is whole: {copied.size} bytes, tables at {copied.revision}, {sealed}", told)


@command(db)
def check(at: Installation, out: Output) -> int | None:
    """Check the whole SQLite ledger for damage while processes run. It may take minutes."""
    from identity.errors import BadInput
    from pipeline.db.sqlite_file import faults, log_beside, what_to_do

    if (path := at.ledger_file) is None:
        raise BadInput("the ledger is on PostgreSQL: `pg_amcheck` looks it through")
    beside = log_beside(path)
    found = faults(path)
    with_log = f", with the {beside} bytes of changes in {path.name}-wal" if beside else ""
    if out.as_json:
        out.document({"whole": not found, "faults": found, "wal_bytes": beside})
    else:
        out.sentence("\n".join([*found, what_to_do(path)]) if found else f"{path} is whole{with_log}")
    return PROBLEM if found else None
