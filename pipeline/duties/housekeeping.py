"""Runs duties: named callables, each in its own thread with an interval, a deadline and a heartbeat.

A duty that fails is logged with its stack and retried at its next tick. One that hangs is visible (a heartbeat with an
error, a gauge, its stack in the log) and holds up no other. Every duty is safe to run twice, so two hosts may run them.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType

from identity.errors import AswhomError, Misconfigured, Unavailable
from identity.sql.store import CommitUnknown
from pipeline import metrics
from pipeline.model import HEARTBEAT

log = logging.getLogger(__name__)

#: The time for a token request on the wire and the commits around it; less than any supervisor waits.
PATIENCE = timedelta(seconds=30)

Beat = Callable[[str, str | None], None]


@dataclass(frozen=True, kw_only=True)
class Duty:
    """A callable to run again and again. A tick not done by *deadline* is stuck."""

    name: str
    every: timedelta
    deadline: timedelta
    run: Callable[[], object]


class _Keeper:
    """One duty with its thread and its current tick."""

    def __init__(self, duty: Duty, beat: Beat, stopped: threading.Event, monotonic: Callable[[], float]) -> None:
        self.duty = duty
        self._beat = beat
        self._stopped = stopped
        self._monotonic = monotonic
        self._began: float | None = None
        self._reported: float | None = None  # the start of a tick reported as stuck
        self._told: str | None = None
        self._told_at: float | None = None
        self.thread = threading.Thread(target=self._run, name=f"duty-{duty.name}", daemon=True)
        metrics.DUTY_STUCK.labels(duty.name).set(0)
        for outcome in ("done", "failed"):  # Prometheus sees no increase when a series first appears at one
            metrics.DUTY_SECONDS.labels(duty.name, outcome)

    def report_if_stuck(self) -> None:
        """Report once that a tick is past its deadline, or that it ended its thread."""
        began = self._began
        if began is None or began == self._reported:
            return
        if not self.thread.is_alive():
            why = "ended by an exception that nothing catches"
        elif self._monotonic() - began >= self.duty.deadline.total_seconds():
            why = f"past its deadline of {self.duty.deadline}"
        else:
            return
        self._reported = began
        metrics.DUTY_STUCK.labels(self.duty.name).set(1)
        frame = sys._current_frames().get(self.thread.ident or 0)  # noqa: SLF001 - the documented way
        log.error(
            "housekeeping: %s is stuck, %s\n%s",
            self.duty.name,
            why,
            "".join(traceback.format_stack(frame)) if frame else "",
            extra={"action": "duty.stuck", "duty": self.duty.name},
        )
        self._tell(f"stuck: {why}")

    def _run(self) -> None:
        while not self._stopped.is_set():
            took = self._tick()
            self._stopped.wait(max(0.0, self.duty.every.total_seconds() - took))

    def _tick(self) -> float:
        self._began = began = self._monotonic()
        error: str | None = None
        try:
            self.duty.run()
        except Unavailable as busy:
            error = f"Unavailable: {busy}"
            log.warning("housekeeping: %s must wait: %s", self.duty.name, busy, extra={"action": "duty.unavailable"})
        except Exception as failure:
            # A duty survives any fault of one tick: it is reported here, and the next tick retries. Only our own errors
            # promise not to contain a token; of others only the class is reported, and the log has the stack.
            error = (
                f"{type(failure).__name__}: {failure}" if isinstance(failure, AswhomError) else type(failure).__name__
            )
            says = f": {failure}" if (clear := isinstance(failure, Misconfigured)) else ""
            extra = {"action": "duty.failed", "duty": self.duty.name}
            log.error("housekeeping: %s failed%s", self.duty.name, says, exc_info=not clear, extra=extra)
        took = self._monotonic() - began
        self._began = None
        metrics.DUTY_SECONDS.labels(self.duty.name, "done" if error is None else "failed").observe(took)
        if self._reported is not None:
            self._reported = None
            metrics.DUTY_STUCK.labels(self.duty.name).set(0)
        self._tell(error)
        return took

    def _tell(self, error: str | None) -> None:
        now = self._monotonic()
        # A heartbeat is a commit; one per tick would be most of the writes of an idle ledger.
        if self._told_at is not None and error == self._told and now - self._told_at < HEARTBEAT.total_seconds():
            return
        try:
            self._beat(self.duty.name, error)
        except (Unavailable, CommitUnknown) as away:
            extra = {"action": "duty.unheard", "duty": self.duty.name}
            log.warning("housekeeping: no heartbeat for %s: %s", self.duty.name, away, extra=extra)
        except Exception:  # the duty goes on: an unreachable ledger shows as an overdue heartbeat
            log.exception("housekeeping: no heartbeat for %s", self.duty.name, extra={"action": "duty.unheard"})
        else:
            self._told, self._told_at = error, now


class Housekeeping:
    """Runs duties in threads: `start`, then `stop`, or `run` in a process that does nothing else.

    `beat(duty, error)` stores a heartbeat. *stopping* is set by `stop`, for duties whose tick can end early.
    """

    def __init__(
        self,
        duties: Sequence[Duty],
        beat: Beat,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        stopping: threading.Event | None = None,
    ) -> None:
        names = [duty.name for duty in duties]
        if len(set(names)) != len(names):
            raise ValueError("two duties have one name")
        self._stopped = stopping or threading.Event()
        self._keepers = [_Keeper(duty, beat, self._stopped, monotonic) for duty in duties]
        self._watch = threading.Thread(target=self._watch_keepers, name="duty-watch", daemon=True)

    def start(self) -> None:
        for keeper in self._keepers:
            keeper.thread.start()
        self._watch.start()

    def stop(self, patience: timedelta = PATIENCE) -> bool:
        """End every duty after its current tick; return False if one outlasts *patience* (it ends with the process)."""
        self._stopped.set()
        deadline = time.monotonic() + patience.total_seconds()
        for thread in [keeper.thread for keeper in self._keepers] + [self._watch]:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(keeper.thread.is_alive() for keeper in self._keepers)

    def run(self, patience: timedelta = PATIENCE) -> bool:
        """Start, wait for SIGTERM or SIGINT, then stop."""
        asked = threading.Event()

        def ask(_number: int, _frame: FrameType | None) -> None:
            asked.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, ask)
        self.start()
        asked.wait()
        return self.stop(patience)

    def _watch_keepers(self) -> None:
        period = min((keeper.duty.deadline.total_seconds() / 4 for keeper in self._keepers), default=1.0)
        while not self._stopped.wait(min(period, 1.0)):
            for keeper in self._keepers:
                keeper.report_if_stuck()
