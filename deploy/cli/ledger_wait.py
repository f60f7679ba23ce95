"""`db wait`: for what is to start once the ledger is there, and its tables are this version's."""

from __future__ import annotations

import signal
from datetime import timedelta
from types import FrameType

import click

from deploy.cli.command import PROBLEM, command
from deploy.cli.output import Output
from deploy.cli.running import db
from deploy.installation import Installation
from deploy.waiting import looks

EX_CONFIG = 78  # of sysexits.h, as the processes have it: to try again is no use
_LOOK_AGAIN = timedelta(seconds=2)


@command(db, misconfigured=EX_CONFIG)
@click.option(
    "--within", type=click.IntRange(0, 86_400), default=600, show_default=True, help="Give up after so many seconds."
)
def wait(at: Installation, out: Output, within: int) -> int | None:
    """Wait until the ledger is there, at this version's tables.

    Exits with 1 if that takes too long, and with 78 at once where waiting is no use: a setting is wrong, say, or the
    tables are a newer version's.
    """
    from deploy.posix_signals import handling

    with handling((signal.SIGTERM, signal.SIGINT), _leave):  # as the first process of a container nobody else hears it
        said: str | None = None
        for _ in looks(timedelta(seconds=within), every=_LOOK_AGAIN):
            awaited = _awaited(at)
            if awaited is None:
                out.done("the ledger is there, at this version's tables", {"there": True})
                return None
            if awaited != said:
                out.note(f"aswhom: waiting: {awaited}")
                said = awaited
    out.note(f"aswhom: the ledger is not there after {within} s: {said}")
    return PROBLEM


def _awaited(at: Installation) -> str | None:
    """What is missing and may still come. Raises Misconfigured for what does not come by itself."""
    from identity.errors import LedgerDamaged, Misconfigured, Unavailable
    from pipeline.ledger.numbering import behind
    from pipeline.ledger.revision import misfit, of_a_newer_version, revision_of

    database = at.unchecked_ledger
    try:
        found = revision_of(database)
        if newer := of_a_newer_version(found):
            raise Misconfigured(newer)
        if older := misfit(found):
            return older
        if lost := database.read(behind):
            raise Misconfigured(lost)
    except LedgerDamaged as damaged:
        raise Misconfigured(str(damaged)) from damaged
    except Unavailable as away:
        return str(away)
    return None


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Not 0: what follows must not begin."""
    raise SystemExit(PROBLEM)
