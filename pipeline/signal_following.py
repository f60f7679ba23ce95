"""Follows a signal that means more accounts than one transaction reaches, until it has reached them all.

The request that accepted it does, so that it is answered when all of it holds; what that leaves, housekeeping does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from identity.errors import Unavailable
from identity.store import CommitUnknown, Store
from pipeline.ledger.signal_chunks import Progress, follow_next, unfollowed
from pipeline.model import Ring, Unfollowed

_BATCH = 20  # signals in one tick
_WITHIN = timedelta(seconds=10)  # of one tick


def follow_on(
    store: Store,
    delivery: str,
    *,
    clock: Callable[[], datetime],
    end: float,
    monotonic: Callable[[], float] = time.monotonic,
) -> Progress:
    """Reach accounts, a few a transaction, until nobody is left or *monotonic* says *end*. Raises Unfollowed."""
    made: tuple[str, ...] = ()
    while True:
        try:
            done = store.write(partial(follow_next, delivery=delivery, now=clock()))
        except (CommitUnknown, Unavailable) as error:  # whoever goes on reads whom that transaction reached
            raise Unfollowed(delivery) from error
        made += done.revocations
        if not done.left or monotonic() >= end:
            return replace(done, revocations=made)


def follow_signals(
    store: Store, ring: Ring, *, clock: Callable[[], datetime], monotonic: Callable[[], float] = time.monotonic
) -> None:
    """Housekeeping: go on with the signals whose requests were cut short."""
    end = monotonic() + _WITHIN.total_seconds()
    for delivery in store.read(partial(unfollowed, limit=_BATCH)):
        done = follow_on(store, delivery, clock=clock, end=end, monotonic=monotonic)
        if done.revocations:
            ring.revocations(done.revocations)
