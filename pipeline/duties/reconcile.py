"""Housekeeping's work on the ledger: finds what was lost, whatever happened to the messages.

Every function is safe to run twice, on two hosts, at once: it moves rows by compare-and-set and rings after the commit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection

from identity.failures import Failures
from identity.hold import find_hold
from identity.sql.columns import database_now
from identity.sql.rows import insert_or
from identity.sql.store import Store
from pipeline import metrics
from pipeline.approvals import ends
from pipeline.duties.housekeeping import Duty
from pipeline.execution.worker import WorkerSettings
from pipeline.intervals import RHYTHMS
from pipeline.jobs import bells, claims, waits
from pipeline.ledger.clock import ledger_now
from pipeline.model import Ring
from pipeline.revoker.revoker import Revoker
from pipeline.states import JobState
from pipeline.steps import stored as ledger_steps
from pipeline.tables import heartbeats

log = logging.getLogger(__name__)

BATCH = 200  # rows per transaction
APPROVALS = 50  # that end per transaction, as each is looked at by itself
TICK = timedelta(seconds=10)  # no revocation is begun after it, since each may call its provider and wait


def dispatch(store: Store, ring: Ring, *, window: int) -> None:
    """Top up the bells of every queue, with a fair share per tenant; unanswered bells are rung again."""
    for pattern, busy in store.read(bells.busy_tenants).items():
        if shares := bells.share_out(busy, window=window, unheard=partial(ring.unheard, pattern)):
            ring.jobs(store.write(partial(bells.top_up, pattern=pattern, shares=shares)))


def in_rhythm(store: Store, name: str, run: Callable[[], object]) -> Duty:
    """Return the named duty. One that calls other services does nothing while the installation is held."""

    def unless_held() -> None:
        if store.read(find_hold) is None:
            run()

    rhythm = RHYTHMS[name]
    return Duty(name=name, every=rhythm.every, deadline=rhythm.deadline, run=unless_held if rhythm.outward else run)


def end_approvals(store: Store) -> None:
    """End open approvals whose time or job is over, so that nobody is asked for nothing."""
    while store.read(ends.some_are_over):
        if store.write(partial(ends.end_some, at_most=APPROVALS)) < APPROVALS:
            return  # otherwise the next ones, in another transaction


def reclaim(store: Store, settings: WorkerSettings) -> None:
    """Spend a run for each expired claim: its worker died, or was stopped for too long."""
    found = store.read(lambda c: claims.lapsed(c, limit=BATCH))
    if not found:
        return

    def spend(c: Connection) -> list[tuple[str, str, JobState | None]]:
        reason = "the worker that had it died, or was stopped for too long"
        return [
            (
                row.id,
                row.pattern,
                claims.spend_run(
                    c,
                    row.id,
                    fence=row.fence,
                    limit=settings.runs,
                    delay=settings.backoff,
                    reason=reason,
                    if_lapsed=True,
                ),
            )
            for row in found
        ]

    for job, pattern, to in store.write(spend):
        metrics.count_end(pattern, to)
        log.warning("claim lapsed", extra={"action": "job.lapsed", "job": job, "to": to})


def wake_due(store: Store) -> None:
    """End the waits that are due: sleepers and waiters for a once key look again, expired waits are dead."""
    found = store.read(lambda c: waits.due_waits(c, limit=BATCH))
    if not found:
        return

    def end(c: Connection) -> list[tuple[str, JobState | None]]:
        return [
            (
                row.pattern,
                waits.end_wait(c, row.id, fence=row.fence, wait=row.wait, expired=bool(row.expired), reason=row.reason),
            )
            for row in found
        ]

    for pattern, to in store.write(end):
        metrics.count_end(pattern, to)


def settle_attempts(store: Store) -> None:
    """Settle overdue attempts: unanswered calls become unknown, whatever their job's state, and searches end."""
    found = store.read(lambda c: ledger_steps.overdue(c, limit=BATCH))
    if not found:
        return

    def settle(c: Connection) -> None:
        now = ledger_now(c)
        for row in found:
            ledger_steps.settle(c, row, now=now)

    store.write(settle)


def advance_revocations(revoker: Revoker, *, idle: timedelta, monotonic: Callable[[], float] = time.monotonic) -> None:
    """Advance revocations that have not moved for a while, without the queue."""
    unfinished = revoker.unfinished(idle_seconds=idle.total_seconds())
    _each(unfinished, partial(_advance_or_put_off, revoker), monotonic)


def advance_withdrawals(
    revoker: Revoker, due: Callable[[], Sequence[str]], *, monotonic: Callable[[], float] = time.monotonic
) -> None:
    """Make the due requests to providers about revoked credentials, and update the receipts with their outcomes."""
    _each(due(), revoker.follow_up, monotonic)


def _each(revocations: Sequence[str], act: Callable[[str], None], monotonic: Callable[[], float]) -> None:
    """Act on each revocation independently; those a tick has no time for are due at the next one.

    Raises the failures after the rest is done.
    """
    end = monotonic() + TICK.total_seconds()
    failures = Failures()
    for revocation in revocations:
        if monotonic() >= end:
            break
        try:
            act(revocation)
        except Exception as failure:  # noqa: BLE001 - raised below: one failure must not hold up the others
            failures.add("revocation", revocation, failure)
    failures.tell("revocations that could not go on")


def _advance_or_put_off(revoker: Revoker, revocation: str) -> None:
    try:
        revoker.advance(revocation)
    except Exception:
        revoker.put_off(revocation)  # otherwise it would come first again at every tick
        raise


def heartbeat(store: Store, *, duty: str, host: str, error: str | None, now: datetime) -> None:
    """Store that a duty ticked, for `aswhom doctor`. *now* is on the host's clock: shown but not relied on."""
    said: dict[str, Any] = {"at": database_now(), "host_at": now, "error": error}
    if error is not None:  # kept when later ticks succeed: one in five may meet what always fails
        said |= {"last_error": error, "failed_at": database_now()}

    def beat(c: Connection) -> None:
        row = insert_or(c, heartbeats).values(duty=duty, host=host, **said)
        c.execute(row.on_conflict_do_update(index_elements=["duty", "host"], set_=said))

    store.write(beat)
