"""`hold`: pauses everything outgoing until release, while incoming deliveries are still accepted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click

from deploy.cli.command import PROBLEM, command, confirm
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.errors import BadInput
from identity.hold import find_hold, release_hold, set_hold
from pipeline.desk.restored import is_of_restore
from pipeline.revoker.inquiry import open_doubts
from pipeline.views.calls_out import CallsOut, calls_out
from pipeline.views.troubles import look

_NAMED = 10  # how many revocations a sentence lists


@click.group()
def hold() -> None:
    """Pause all outgoing work: no job continues, and no token is renewed."""


@command(hold, "set")
@click.option("--why", required=True, help="The reason, shown to anyone who asks why nothing happens.")
def set_(at: Installation, out: Output, why: str) -> int | None:
    """Hold the whole installation: nothing goes out until the release.

    No job is claimed, no step opens, no token is renewed or ended at its provider, and no schedule fires. Deliveries
    are accepted, and revocations take effect. Calls already sent end as usual.

    Exits with 1 if it was held already: the person who set that hold may release it.
    """
    if not why.strip():
        raise BadInput("say why: it is the only explanation people get when they find that nothing goes out")
    act = replace(at.act(), why=why)
    changed = at.write(lambda c: set_hold(c, act), ahead=True)
    _tell(at, out, changed=changed)
    if changed:
        return None
    out.note("It was held already, and the first reason stands. The person who set it may release it before you want.")
    return PROBLEM


@command(hold)
@click.option("--why", help="For the audit.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def release(at: Installation, out: Output, why: str | None, yes: bool) -> None:
    """Release the hold: work that became due meanwhile is due now, and schedules catch up on missed slots."""
    standing, put_back = at.read(lambda c: (find_hold(c), is_of_restore(c)))
    if standing is not None:
        doubted = _doubted(at.read(open_doubts))
        drill = "; THE LEDGER WAS PUT BACK FROM A BACKUP, AND A DRILL IS NEVER RELEASED" if put_back else ""
        confirm(f"{at.which}, {standing.sentence}{drill}.{doubted} Let everything go on?", yes=yes)
    act = replace(at.act(), why=why)
    was = at.write(lambda c: release_hold(c, act), ahead=True)
    out.done("released: everything goes on" if was else "nothing was held", {"held": False, "changed": was is not None})


@command(hold)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if it is not held, for scripts.")
def show(at: Installation, out: Output, exit_code: bool) -> int | None:
    """Show whether the installation is held.

    That includes since when, by whom and why, what is still in flight, and how many jobs are due.
    """
    held = _tell(at, out, changed=False)
    return PROBLEM if exit_code and not held else None


def _tell(at: Installation, out: Output, *, changed: bool) -> bool:
    """Print the hold's state. Return True if the installation is held."""
    standing, still, due, doubts = at.read(
        lambda c: (find_hold(c), calls_out(c), sum(look(c).due.values()), open_doubts(c))
    )
    document: dict[str, Any] = {
        "held": standing is not None,
        "changed": changed,
        "calls_out": still.calls,
        "requests_out": still.tokens,
        "jobs_due": due,
        "doubted": doubts,
    }
    if standing is None:
        out.done("not held: everything goes on", document)
        return False
    document |= {"since": standing.since, "by": standing.by, "why": standing.why}
    waits = "No job is due." if not due else f"{due} job(s) are due, and go on with the release."
    out.done(f"{standing.sentence}. {_still(still)} {waits}{_doubted(doubts)}", document)
    return True


def _doubted(doubts: Sequence[str]) -> str:
    """Describe doubtful revocations, to be checked before the release ends their credentials at the provider."""
    if not doubts:
        return ""
    named = ", ".join(doubts[:_NAMED]) + (" …" if len(doubts) > _NAMED else "")
    return (
        f" {len(doubts)} revocation(s) by a signal that may be a replay wait for the provider's answer ({named}). Once "
        "the revoked token has expired the provider cannot tell, and after the release its successor is ended there."
    )


def _still(still: CallsOut) -> str:
    if still == CallsOut(calls=0, tokens=0):
        return "Nothing is out."
    out = f"{still.calls} call(s) and {still.tokens} token request(s) are still out"
    return f"{out}: repeat `aswhom hold show` until none is."
