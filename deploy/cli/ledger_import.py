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
from identity.errors import AswhomError, BadInput, Misconfigured


@command(db)
@YES
def import_sqlite(at: Installation, out: Output, yes: bool) -> None:
    """Move the data directory's SQLite ledger into the empty PostgreSQL database that ASWHOM_DATABASE_URL names.

    Every process has to be stopped. The old ledger is held, so that nothing goes out from it any more, and is otherwise
    left as it is. The new one has all its rows, compared one by one, or none. It is held too: look at `aswhom doctor`,
    and then let work go on with `aswhom hold release`.
    """
    from identity.hold import set_hold
    from identity.sql.store import CommitUnknown
    from pipeline.ledger.revision import misfit, revision_of
    from pipeline.migrations import upgrade_at
    from pipeline.migrations.sqlite_import import import_sqlite as copy
    from pipeline.migrations.sqlite_import import refuse_used

    if at.settings.on_sqlite:
        raise BadInput("ASWHOM_DATABASE_URL has to name the PostgreSQL database to move to, and it names none")
    with Installation(at.settings.model_copy(update={"database_url": None})) as old:
        path = _intact(old)
        if said := misfit(revision_of(old.unchecked_ledger)):
            raise Misconfigured(f"{said} (with no ASWHOM_DATABASE_URL), and then repeat this")
        because = f"the ledger {path} is to be moved"
        refuse_beside_others(at.settings, lambda: old.ledger, because=because, tell=out.now)
        at.unchecked_ledger.read(refuse_used)
        confirm(f"The ledger {path} is to be moved to {at.place}, and to stay held. Go on?", yes=yes)
        upgrade_at(at.settings.database())
        moved = f"it was moved to {at.place}: release this hold only if that move is given up"
        holds, act = replace(at.act(), why=moved), at.act()
        old.write(lambda c: set_hold(c, holds))
        try:
            copied = at.unchecked_ledger.write(
                lambda c: copy(
                    old.ledger, c, act, origin=str(path), progress=lambda table, rows: out.now(f"{table}: {rows}")
                )
            )
        except (AswhomError, CommitUnknown):
            out.note(
                f"the ledger {path} is held: repeat this command, or give the move up with `aswhom hold release` "
                "without ASWHOM_DATABASE_URL"
            )
            raise
    told = [
        f"{copied} rows were moved from {path} to {at.place}, and compared.",
        "Both ledgers are held. Next: start every process with ASWHOM_DATABASE_URL as it is now, look at `aswhom",
        f"doctor`, and let work go on with `aswhom hold release`. Then move {path} away: it holds credentials.",
    ]
    out.done("\n".join(told), {"rows": copied, "from": str(path), "to": at.place, "held": True})


def _intact(old: Installation) -> Path:
    """Return the file of the old ledger. Raise Misconfigured if there is none, or if it is damaged."""
    from pipeline.db.sqlite_file import faults, what_to_do

    path = cast("Path", old.ledger_file)  # without a URL, an installation is on SQLite
    if found := faults(path):
        raise Misconfigured(f"{what_to_do(path)}. Nothing was moved: {found[0]}")
    return path
