"""Follows a signal to more accounts than one transaction reaches, until all are reached.

The accepting request does as much as it can, so that its answer means that all of it holds; housekeeping does the rest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from identity.errors import Unavailable
from identity.failures import Failures
from identity.sql.store import CommitUnknown, Store
from pipeline.metrics import REVOCATION_EFFECTIVE_SECONDS
from pipeline.model import Ring, Unfollowed
from pipeline.revocation.signal_chunks import Progress, follow_next, unfollowed

_BATCH = 20  # signals that take turns
_WITHIN = timedelta(seconds=10)  # per tick
_BUSY, _AGAIN = timedelta(seconds=5), timedelta(minutes=1)  # delay before a signal that failed has another turn

log = logging.getLogger(__name__)


def follow_on(
    store: Store,
    delivery: str,
    *,
    clock: Callable[[], datetime],
    end: float,
    monotonic: Callable[[], float],
) -> Progress:
    """Reach accounts, a few per transaction. Raises Unfollowed if accounts are left when *monotonic* reaches *end*."""
    made: tuple[str, ...] = ()
    while True:
        try:
            done = store.write(partial(follow_next, delivery=delivery, now=clock()))
        except (CommitUnknown, Unavailable) as error:  # the next attempt reads which accounts that transaction reached
            raise Unfollowed(delivery, made) from error
        # accounts already reached must still be rung for; housekeeping meets the error again
        except Exception as error:
            log.exception("a signal could not go on", extra={"action": "signal.failed", "delivery": delivery})
            raise Unfollowed(delivery, made) from error
        made += done.revocations
        if not done.left:
            return replace(done, revocations=made)
        if monotonic() >= end:
            raise Unfollowed(delivery, made)


def measure(done: Progress, *, now: datetime) -> None:
    """Observe the time from a delivery until its signal had revoked everything, if that was not in its own request."""
    if done.received_at is not None:
        REVOCATION_EFFECTIVE_SECONDS.observe((now - done.received_at).total_seconds())


class SignalFollower:
    """The part of housekeeping. One thread."""

    def __init__(
        self,
        store: Store,
        ring: Ring,
        *,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._ring = ring
        self._clock = clock
        self._monotonic = monotonic
        self._again: dict[str, float] = {}  # deliveries whose signals failed, and when they have another turn

    def run(self) -> None:
        """Continue the signals whose requests were cut short, a few accounts of each in turn.

        A failing signal blocks nothing else, and others have their turn first. Raises its failures after the rest.
        """
        began = self._monotonic()
        end = began + _WITHIN.total_seconds()
        self._again = {delivery: again for delivery, again in self._again.items() if again > began}
        failures = Failures()
        while self._monotonic() < end:
            waiting = self._store.read(partial(unfollowed, besides=list(self._again), limit=_BATCH))
            if not waiting:
                break
            for delivery in waiting:
                if self._monotonic() >= end:
                    break
                try:
                    done = self._store.write(partial(follow_next, delivery=delivery, now=self._clock()))
                except Exception as failure:  # noqa: BLE001 - raised below: one signal's bug must not stop the others
                    failures.add("delivery", delivery, failure)
                    pause = _BUSY if isinstance(failure, Unavailable | CommitUnknown) else _AGAIN
                    self._again[delivery] = self._monotonic() + pause.total_seconds()
                else:
                    measure(done, now=self._clock())
                    self._ring.revocations(done.revocations)
        failures.tell("signals that could not reach everyone")
