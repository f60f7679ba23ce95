"""Celery Beat's scheduler, with the ledger as its schedule.

Any number of beats may run: a slot is a row, and only the beat whose transaction inserted it rings for its job.
"""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from celery import beat

from identity.errors import Misconfigured
from pipeline import metrics
from pipeline.model import Bell

if TYPE_CHECKING:
    from pipeline.celery import App

log = logging.getLogger(__name__)


class Schedules(Protocol):
    """The ledger's side of a beat."""

    def fire_due(self, now: datetime) -> list[Bell]:
        """Insert a job for every due slot that has none yet, move `next_at` on, and return the bells of those jobs."""
        ...


class Scheduler(beat.Scheduler):
    """`celery beat --scheduler pipeline.schedule:Scheduler`."""

    app: App

    def setup_schedule(self) -> None:
        try:
            self._runtime = self.app.open_runtime()
        except Misconfigured as fault:
            log.critical("the schedule cannot be kept: %s", fault, extra={"action": "beat.misconfigured"})
            raise SystemExit(os.EX_CONFIG) from fault
        self._ticking = self._closed = False

    def tick(self, *_: Any, **__: Any) -> float:
        """Fire what is due; return the seconds until the next look."""
        self._ticking = True
        try:
            bells = self._runtime.schedules.fire_due(datetime.now(UTC))
            metrics.SLOTS.inc(len(bells))
            self._runtime.ring.jobs(bells)
        except Exception:  # beat must not end for a tick: it is counted, logged with its stack, and tried again
            metrics.BEAT_FAILURES.inc()
            log.exception("due slots could not be fired: the next tick tries again", extra={"action": "beat.failed"})
        finally:
            self._ticking = False
        return float(self.app.conf.beat_max_loop_interval)

    def close(self) -> None:
        """Beat calls this from its signal handler, maybe in the middle of a tick, and again on its way out."""
        super().close()
        if not self._ticking and not self._closed:
            self._closed = True
            self._runtime.close()
