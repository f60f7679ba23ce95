"""`init`, `up`, `demo` and `db`: setting up and running an installation."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import click

from deploy.cli.command import DONE, PROBLEM, YES, command, confirm, invocation, tell
from deploy.cli.output import Output
from deploy.installation import Installation

while_others_run = click.option(
    "--while-others-run",
    is_flag=True,
    help="Change the ledger's tables even while processes run on it, which may then misbehave.",
)


@click.command()
@while_others_run
@invocation
def init(at: Installation, out: Output, while_others_run: bool) -> None:
    """Create a data directory, keys and a ledger. Existing ones are kept."""
    from deploy.ledger_keys import tell_of_new_ledger
    from deploy.up import initialise
    from deploy.upgrade import migrate

    paths = initialise(at.settings)
    made = [str(path) for path in paths]
    tell_of_new_ledger(at.settings, paths, out.note)
    migrate(at.settings, say=out.now, beside_others=while_others_run)
    out.done(
        "\n".join(
            [
                *(f"made {path}" for path in made),
                "Ready. Keep a copy of the keys elsewhere. Next: `aswhom up`, or the processes of the Procfile",
            ]
        ),
        {"made": made, "data_dir": str(at.settings.data_dir)},
    )


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="The installation's directory.  [default: .aswhom]")
@click.option("--database-url", metavar="URL", help="A PostgreSQL database, instead of SQLite in the data directory.")
@click.option("--broker-url", metavar="URL", help="A Redis, Valkey or RabbitMQ, instead of a private Valkey.")
@while_others_run
def up(data_dir: Path | None, database_url: str | None, broker_url: str | None, while_others_run: bool) -> None:
    """Run everything on this machine until Ctrl-C: web, workers, schedules, housekeeping, and a private Valkey.

    Prefer ASWHOM_DATABASE_URL and ASWHOM_BROKER_URL for URLs that contain a password.
    """
    from deploy.process import EX_CONFIG
    from deploy.settings import load
    from deploy.up import run
    from identity.errors import AswhomError, Misconfigured

    def say(line: str) -> None:
        click.echo(f"aswhom: {line}", err=True)

    try:
        settings = load(data_dir=data_dir, database_url=database_url, broker_url=broker_url)
        code = run(settings, say=say, unrecorded=sys.stderr.isatty(), beside_others=while_others_run)
    except AswhomError as error:
        say(str(error))
        code = EX_CONFIG if isinstance(error, Misconfigured) else PROBLEM
    sys.exit(code)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Keep the demo's data here.")
@click.option(
    "--within",
    type=click.IntRange(0, 86_400),
    default=180,
    show_default=True,
    help="Fail if it takes longer than this many seconds.",
)
def demo(as_json: bool, data_dir: Path | None, within: int) -> None:
    """Watch agents at work against the sandbox."""
    from deploy.demo import run
    from identity.errors import AswhomError
    from identity.sql.store import CommitUnknown

    try:
        code = run(json=as_json, data_dir=data_dir, within=timedelta(seconds=within))
    except (AswhomError, CommitUnknown) as error:
        code = tell(Output(as_json=as_json), error)
    sys.exit(code)


@click.group()
def db() -> None:
    """The ledger: migrations, backup, integrity check."""


@command(db)
@while_others_run
@click.option(
    "--check", is_flag=True, help="Report what would block the upgrade, while processes run. Changes nothing."
)
def upgrade(at: Installation, out: Output, while_others_run: bool, check: bool) -> int | None:
    """Migrate the ledger to this version's tables. Does nothing if it is up to date."""
    from deploy.ledger_keys import tell_of_new_ledger
    from deploy.upgrade import migrate
    from pipeline.ledger.revision import revision_of

    if check:
        return _rehearse(at, out)

    def begins(to: str, number: int, of: int) -> None:
        out.now(f"upgrading to {to} ({number} of {of})")

    before = revision_of(at.unchecked_ledger)
    tell_of_new_ledger(at.settings, (), out.note)
    migrate(at.settings, say=out.now, begins=begins, beside_others=while_others_run)
    after = revision_of(at.unchecked_ledger)
    upgraded = (
        f"upgraded from {before or 'nothing'} to {after}. Next: start every process, of this version alone, and look "
        "at `aswhom doctor`"
    )
    out.done(upgraded if before != after else f"already at {after}", {"before": before, "after": after})
    return None


def _rehearse(at: Installation, out: Output) -> int:
    from deploy.rehearsal import in_the_way
    from pipeline.ledger.revision import newest, of_a_newer_version, revision_of
    from pipeline.migrations.touched import touched

    at.ledger_file  # noqa: B018 - raises if there is no file, which opening would create
    before, faults = revision_of(at.unchecked_ledger), in_the_way(at)
    told = "\n".join(f"- {fault}" for fault in faults) or "nothing is in the way with this host's settings and keys"
    told += f"\nNothing was changed: the tables are at {before or 'nothing'}, and this version's are {newest()}"
    due = {} if before is None or of_a_newer_version(before) else touched(before)
    if due:
        told += "\ntables: change. Stop every process before the upgrade. What takes longer the larger it is:"
        told += "".join(f"\n- {name}: {', '.join(tables) or 'nothing'}" for name, tables in due.items())
    elif before == newest():
        told += "\ntables: unchanged. The changelog says whether to restart one process after the other, or to stop all"
    out.done(told, {"before": before, "after": newest(), "faults": faults, "revisions": due})
    return PROBLEM if faults else DONE


@command(db)
@YES
def prune(at: Installation, out: Output, yes: bool) -> None:
    """Delete data older than the ASWHOM_KEEP_ settings allow. Housekeeping does the same, a little at a time."""
    from pipeline.duties.retention import prune as forget
    from pipeline.ledger.clock import ledger_now

    retention = at.settings.retention()
    confirm("What is forgotten cannot be brought back. Go on?", yes=yes)
    now, forgotten = at.read(ledger_now), Counter[str]()
    try:
        with out.count("forgetting") as tell:

            def progress(what: str, number: int) -> None:
                forgotten[what] += number
                tell(what, number)

            every = forget(at.ledger, retention, at.signer, now=now, within=timedelta(days=1), progress=progress)
    except Exception:
        out.note(_forgotten(forgotten))
        raise
    out.done(_forgotten(forgotten), dict(every))


def _forgotten(numbers: Mapping[str, int]) -> str:
    told = ", ".join(f"{number} {what}" for what, number in numbers.items())
    return f"forgotten: {told or 'nothing was old enough'}"
