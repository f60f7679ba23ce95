"""`db wait`: blocks until the ledger is reachable at this version's tables, for processes that start after it."""

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

EX_CONFIG = 78  # from sysexits.h, as the other processes use it: a retry cannot help
_LOOK_AGAIN = timedelta(seconds=2)


@command(db, misconfigured=EX_CONFIG)
@click.option(
    "--within", type=click.IntRange(0, 86_400), default=600, show_default=True, help="Give up after this many seconds."
)
def wait(at: Installation, out: Output, within: int) -> int | None:
    """Wait until the ledger is reachable at this version's tables.

    Exits with 1 if that takes too long, and with 78 immediately if waiting cannot help, for example because a setting
    is wrong or the tables belong to a newer version.
    """
    from deploy.posix_signals import handling

    with handling((signal.SIGTERM, signal.SIGINT), _leave):  # as PID 1 of a container, no default handler applies
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
    """Return what is missing and may still come, or None. Raise Misconfigured for a fault that waiting cannot fix."""
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
    """Exit with a failure, so that whatever starts after `db wait` does not start."""
    raise SystemExit(PROBLEM)
