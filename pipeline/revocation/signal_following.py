"""Follows a signal that means more accounts than one transaction reaches, until it has reached them all.

The request that accepted it does, so that it is answered when all of it holds; what that leaves, housekeeping does.
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
from pipeline.ledger.signal_chunks import Progress, follow_next, unfollowed
from pipeline.model import Ring, Unfollowed

_BATCH = 20  # signals that take turns
_WITHIN = timedelta(seconds=10)  # of one tick
_BUSY, _AGAIN = timedelta(seconds=5), timedelta(minutes=1)  # until one that could not go on has another turn

log = logging.getLogger(__name__)


def follow_on(
    store: Store,
    delivery: str,
    *,
    clock: Callable[[], datetime],
    end: float,
    monotonic: Callable[[], float],
) -> Progress:
    """Reach accounts, a few a transaction. Raises Unfollowed when *monotonic* says *end* and somebody is left."""
    made: tuple[str, ...] = ()
    while True:
        try:
            done = store.write(partial(follow_next, delivery=delivery, now=clock()))
        except (CommitUnknown, Unavailable) as error:  # whoever goes on reads whom that transaction reached
            raise Unfollowed(delivery, made) from error
        except Exception as error:  # those that were reached are still to be rung for; housekeeping meets it again
            log.exception("a signal could not go on", extra={"action": "signal.failed", "delivery": delivery})
            raise Unfollowed(delivery, made) from error
        made += done.revocations
        if not done.left:
            return replace(done, revocations=made)
        if monotonic() >= end:
            raise Unfollowed(delivery, made)


class SignalFollower:
    """Housekeeping's part. One thread."""

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
        self._again: dict[str, float] = {}  # deliveries whose signals could not go on, and when they have another turn

    def run(self) -> None:
        """Go on with the signals whose requests were cut short, a few accounts of each in turn.

        What cannot go on holds up nothing else, and others have their turn first. Raises, after the rest, what it met.
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
                    self._ring.revocations(done.revocations)
        failures.tell("signals that could not reach everyone")
