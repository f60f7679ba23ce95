"""Celery Beat's scheduler, with the ledger as its schedule.

Any number of beats may run: a slot is a row, and only the beat whose transaction inserted it rings for its job.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from celery import beat

from identity.errors import Misconfigured
from pipeline import metrics
from pipeline.model import BEAT, HEARTBEAT, Bell

if TYPE_CHECKING:
    from pipeline.broker.celery import App

log = logging.getLogger(__name__)


class Schedules(Protocol):
    """The ledger's side of a beat."""

    def fire_due(self, now: datetime, ring: Callable[[Sequence[Bell]], object]) -> list[Bell]:
        """Insert a job for every due slot that has none yet, move schedules on, and return the bells of those jobs.

        *ring* is called for each schedule's bells as soon as they are committed, even if others fail.
        """
        ...


class Scheduler(beat.Scheduler):
    """The scheduler for `celery beat --scheduler pipeline.schedules.beat:Scheduler`."""

    app: App

    def setup_schedule(self) -> None:
        try:
            self._runtime = self.app.open_runtime()
        except Misconfigured as fault:
            log.critical("the schedule cannot be kept: %s", fault, extra={"action": "beat.misconfigured"})
            raise SystemExit(os.EX_CONFIG) from fault
        self._ticking = self._closed = False
        self._told: str | None = None
        self._told_at = float("-inf")

    def tick(self, *_: Any, **__: Any) -> float:
        """Fire what is due; return the seconds until the next look."""
        self._ticking = True
        error: str | None = None
        try:
            self._runtime.schedules.fire_due(datetime.now(UTC), self._ring)
        # beat must not end because of a tick: counted, logged with its stack, and tried again
        except Exception as failure:
            metrics.BEAT_FAILURES.inc()
            log.exception("due slots could not be fired: the next tick tries again", extra={"action": "beat.failed"})
            error = type(failure).__name__
        finally:
            self._ticking = False
            self.app.ticks.ended()
        self._tell(error)
        return float(self.app.conf.beat_max_loop_interval)

    def _ring(self, bells: Sequence[Bell]) -> None:
        metrics.SLOTS.inc(len(bells))
        self._runtime.ring.jobs(bells)

    def _tell(self, error: str | None) -> None:
        """Leave a heartbeat: it shows that a beat ticks, and its age shows that one has stopped."""
        now = time.monotonic()
        if self._closed or (error == self._told and now - self._told_at < HEARTBEAT.total_seconds()):
            return
        try:
            self._runtime.heartbeat(BEAT, error)
        except Exception:  # the schedule is kept all the same; an unwritable heartbeat shows by its age
            log.exception("no heartbeat of the schedule", extra={"action": "beat.unheard"})
        else:
            self._told, self._told_at = error, now

    def close(self) -> None:
        """Close once. Beat calls this from its signal handler, possibly in the middle of a tick, and again on exit."""
        super().close()
        if not self._ticking and not self._closed:
            self._closed = True
            self._runtime.close()
