"""`db import-sqlite`: the move of an installation from SQLite to PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

from deploy.cli.command import YES, command, confirm
from deploy.cli.output import Output
from deploy.cli.running import db
from deploy.installation import Installation
from deploy.running_check import refuse_beside_others
from identity.errors import BadInput, Misconfigured


@command(db)
@YES
def import_sqlite(at: Installation, out: Output, yes: bool) -> None:
    """Move the data directory's SQLite ledger into the empty PostgreSQL database that ASWHOM_DATABASE_URL names.

    Every process has to be stopped. The old ledger is held, so that nothing goes out from it any more, and is otherwise
    left as it is. The new one has all its rows, compared one by one, or stays empty. It is held too: look at `aswhom
    doctor`, and then let work go on with `aswhom hold release`. If the ledger was moved already, this says so.
    """
    from identity.hold import find_hold
    from pipeline.ledger.numbering import last_given
    from pipeline.ledger.revision import misfit, revision_of
    from pipeline.ledger.running_processes import refuse_beside_processes
    from pipeline.migrations import sqlite_import as moving

    if at.settings.on_sqlite:
        raise BadInput("ASWHOM_DATABASE_URL has to name the PostgreSQL database to move to, and it names none")
    with Installation(at.settings.model_copy(update={"database_url": None})) as old:
        path, new = _intact(old), at.unchecked_ledger
        if said := misfit(revision_of(old.unchecked_ledger)):
            raise Misconfigured(f"{said} (with no ASWHOM_DATABASE_URL), and then repeat this")
        new.read(moving.refuse_unfit)
        last = old.read(last_given)
        rows = new.read(lambda c: moving.rows_moved(c, origin=str(path), last=last))
        if rows is not None:
            _tell(at, out, path, rows, held=new.read(find_hold) is not None)
            return
        because = f"the ledger {path} is to be moved to {at.place}"
        refuse_beside_others(at.settings, lambda: old.ledger, because=because, tell=out.now)
        refuse_beside_processes(new, because=because, tell=out.now)
        new.read(moving.refuse_rows)
        confirm(f"The ledger {path} is to be moved to {at.place}, and to stay held. Go on?", yes=yes)
        began = replace(
            at.act(), why=f"its move to {at.place} was begun: release this hold only if the move is given up"
        )
        act = replace(at.act(), why=f"moved here from {path}: release it once `aswhom doctor` is content")
        if replaced := old.write(lambda c: moving.hold_for_move(c, began)):
            out.note(f"the ledger {path} was {replaced.sentence}. The hold of the move takes its place")
        try:
            with out.count("moving") as progress:
                rows = new.write(
                    lambda c: moving.import_sqlite(old.ledger, c, act, origin=str(path), progress=progress)
                )
        except BaseException:  # Ctrl-C as well
            out.note(
                f"the ledger {path} stays held: repeat this command (if the move was done after all, it says so), or "
                "give the move up with `aswhom hold release` without ASWHOM_DATABASE_URL"
            )
            raise
    _tell(at, out, path, rows, held=True)


def _tell(at: Installation, out: Output, path: Path, rows: int, *, held: bool) -> None:
    """Print the result. *held*: the new ledger still is."""
    told = [
        f"{rows} rows were moved from {path} to {at.place}, and compared.",
        "Both ledgers are held. Next: start every process with ASWHOM_DATABASE_URL as it is now, look at `aswhom",
        f"doctor`, and let work go on with `aswhom hold release`. Then move {path} away: it holds credentials.",
    ]
    if not held:
        told[1:] = [f"The new ledger was released since. Move {path} away: it holds credentials."]
    out.done("\n".join(told), {"rows": rows, "from": str(path), "to": at.place, "held": held})


def _intact(old: Installation) -> Path:
    """Return the file of the old ledger. Raise Misconfigured if there is none, or if it is damaged."""
    from pipeline.db.sqlite_file import faults, what_to_do

    path = cast("Path", old.ledger_file)  # without a URL, an installation is on SQLite
    if found := faults(path):
        raise Misconfigured(f"{what_to_do(path)}. Nothing was moved: {found[0]}")
    return path
