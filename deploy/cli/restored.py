"""`db restored`: the step between restoring a ledger and starting its processes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import click
from sqlalchemy import Connection, func, select

from deploy.cli.audit_chain import read_checkpoint_file
from deploy.cli.command import command, confirm
from deploy.cli.output import Output
from deploy.cli.public_key import key_option, public_keys
from deploy.cli.running import db
from deploy.installation import Installation
from deploy.local_times import local_time
from deploy.running_check import refuse_beside_others
from identity.audit.export import newest_number
from identity.audit.links import last_seq
from identity.audit.tables import audit
from identity.errors import BadInput, Misconfigured
from pipeline.db.database import Database
from pipeline.db.sqlite_file import faults, log_beside
from pipeline.desk.restored import mark_restored

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
#: The operator's steps up to the release, by their numbers in docs/operations.md, which explains them.
STEPS = {
    3: "`aswhom audit verify --checkpoint FILE`, with the newest checkpoint from before the backup",
    4: "withdraw again what was withdrawn since: `aswhom revoke --from FILE`, the newest list that you kept",
    5: "end again what else ended: stops, narrowings, API keys, secrets, capability keys, roles, schedules, policies",
    6: "`aswhom jobs list --unfinished --limit 1000`: what was done since is done again, unless you cancel it",
    7: "start the processes: deliveries are taken, and nothing goes out. `aswhom doctor`, for a drill with --offline",
    8: "`aswhom hold release`: work goes on at once, and GitHub is asked for lost signals only then; in a drill, never",
    9: "a new `aswhom audit checkpoint`, and a new series of exports",
}


@command(db)
@click.option("--why", required=True, help="The reason, for the audit and for anyone who asks why nothing happens.")
@click.option(
    "--lost-checkpoint", type=_FILE, help="The newest checkpoint kept elsewhere, which names the end of the lost chain."
)
@click.option("--export", "exports", type=_FILE, multiple=True, help="An export of the audit. Repeatable.")
@key_option
@click.option("--fire-missed", is_flag=True, help="Let schedules catch up on slots since the backup.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def restored(
    at: Installation,
    out: Output,
    why: str,
    lost_checkpoint: Path | None,
    exports: tuple[Path, ...],
    key: Path | None,
    fire_missed: bool,
    yes: bool,
) -> None:
    """Mark a ledger that was restored, or that lost commits in a failover, before any process starts.

    It holds the ledger, continues with ledger numbers that nobody has seen, skips the schedule slots that passed, and
    records all this in the audit.
    """
    at.renumbers = True
    because = f"the ledger at {at.place} is to be marked as put back"
    refuse_beside_others(at.settings, lambda: _looked_through(at), because=because, tell=out.now)
    upto = at.read(_upto)
    lost = None if lost_checkpoint is None else read_checkpoint_file(lost_checkpoint, public_keys(at, key))
    seen = max((_newest_number(file) for file in exports), default=0)
    confirm(f"{at.which}, was put back, goes {upto}, and every process of it is stopped. Go on?", yes=yes)
    act = replace(at.act(), why=why)
    done = at.write(lambda c: mark_restored(c, act, seen=seen, lost=lost, fire_missed=fire_missed))
    slots = "schedules fire what they missed" if fire_missed else f"{len(done.schedules)} schedule(s) leave out slots"
    if missing := at.settings.key_files().missing():
        out.note(f"There is no {' and no '.join(map(str, missing))}: put the keys of its time back first")
    told = [
        f"{at.which}, is held; its numbers go on after {done.after}; {slots}.",
        f"What was put back goes to number {done.last}, and its audit's chain to link {done.ends_at}.",
        "Go on with these steps of docs/operations.md:",
        *(f"{number}. {step}" for number, step in STEPS.items()),
    ]
    document = {"held": True, "last_number": done.last, "numbers_after": done.after, "chain_ends_at": done.ends_at}
    out.done("\n".join(told), document | {"schedules": list(done.schedules), "steps": STEPS})


def _looked_through(at: Installation) -> Database:
    """Return the ledger. Raise Misconfigured for a file that is not just the backup.

    SQLite replays a -wal file of another ledger as soon as it opens the file. At best that shows as damage; if the
    pages happen to fit, it does not show at all.
    """
    if (path := at.ledger_file) is None:
        return at.ledger
    anew = f"with every process stopped take {path.name}-wal and {path.name}-shm away, put the backup back anew"
    if size := log_beside(path):
        raise Misconfigured(
            f"beside {path} lies {path.name}-wal of {size} bytes. It is the former ledger's, or a process runs: no "
            f"backup has one, and it may be mixed in already. So {anew}, and mark that one"
        )
    if found := faults(path):
        raise Misconfigured(f"{path} is damaged: {found[0]}. Where a -wal lay beside it, {anew}, and mark that one")
    return at.ledger


def _upto(connection: Connection) -> str:
    """Say how far the ledger goes, by its audit."""
    last: datetime | None = connection.execute(select(func.max(audit.c.at))).scalar_one()
    if last is None:
        return "nowhere: nothing is in its audit"
    return f"up to {local_time(last)}, link {last_seq(connection)}"


def _newest_number(file: Path) -> int:
    try:
        with file.open("rb") as lines:
            return newest_number(file.name, lines)
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from error
