"""`db restored`: what comes between putting a ledger back and starting its processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from deploy.cli.audit import read_checkpoint_file
from deploy.cli.command import command, confirm
from deploy.cli.output import Output
from deploy.cli.public_key import key_option, public_keys
from deploy.cli.running import db
from deploy.installation import Installation
from identity.audit.export import newest_number
from identity.errors import BadInput, Misconfigured
from pipeline.ledger.restored import mark_restored
from pipeline.sqlite_file import faults

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
#: What an operator goes through before the release; docs/operations.md says why.
STEPS = (
    "`aswhom audit verify --checkpoint FILE`, with the newest checkpoint from before the backup",
    "withdraw again what was withdrawn since, as you kept it beside the ledger: `aswhom revoke KIND KEY --yes`",
    "end again what else ended: stops, narrowings, API keys, secrets, capability keys, roles, schedules, policies",
    "`aswhom jobs list --state queued`: what was done since the backup is done again, unless you cancel it",
    "start the processes: deliveries are taken, and nothing goes out. `aswhom doctor`, for a drill with --offline",
    "`aswhom hold release`: work goes on at once, and GitHub is asked for lost signals only then; after a drill, never",
    "a new `aswhom audit checkpoint`, and a new series of exports",
)


@command(db)
@click.option("--why", required=True, help="For the audit, and for whoever wonders why nothing happens.")
@click.option("--lost-checkpoint", type=_FILE, help="The newest one kept elsewhere: the end of the chain that is gone.")
@click.option("--export", "exports", type=_FILE, multiple=True, help="An export of the audit; say it for each.")
@key_option
@click.option("--fire-missed", is_flag=True, help="Let schedules catch up with what passed since the backup.")
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
    """Mark a ledger that was put back, or that a failover took commits from, before any process starts: hold it, go on
    with ledger numbers that nobody has seen, leave out the slots that passed, and say so in the audit.
    """
    at.renumbers = True
    _look_through(at.ledger_file)
    lost = None if lost_checkpoint is None else read_checkpoint_file(lost_checkpoint, public_keys(at, key))
    seen = max((_newest_number(file) for file in exports), default=0)
    which = at.ledger_file or "The ledger"
    confirm(f"{which} was put back, and every process is stopped. Go on?", yes=yes)
    act = replace(at.act(), why=why)
    done = at.write(lambda c: mark_restored(c, act, seen=seen, lost=lost, fire_missed=fire_missed))
    slots = "fire what they missed" if fire_missed else f"{len(done.schedules)} of which leave out what passed"
    told = [
        f"held; ledger numbers go on after {done.after} (the last one here was {done.last}); schedules, {slots}. Now:",
        *(f"{number}. {step}" for number, step in enumerate(STEPS, start=1)),
    ]
    document = {"held": True, "last_number": done.last, "numbers_after": done.after, "chain_ends_at": done.ends_at}
    out.done("\n".join(told), document | {"schedules": list(done.schedules), "steps": list(STEPS)})


def _look_through(path: Path | None) -> None:
    """A file that was put back beside another ledger's log of changes is spoilt as soon as it is opened."""
    if path is not None and (found := faults(path)):
        raise Misconfigured(
            f"{path} is damaged: {found[0]}. Did a -wal of another ledger lie beside it? Take {path.name}-wal and "
            f"{path.name}-shm away, put the backup back anew, and mark that one"
        )


def _newest_number(file: Path) -> int:
    try:
        with file.open("rb") as lines:
            return newest_number(file.name, lines)
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from error
