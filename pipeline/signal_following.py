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
from pipeline.failures import Failures
from pipeline.ledger.signal_chunks import Progress, follow_next, unfollowed
from pipeline.model import Ring, Unfollowed

_BATCH = 20  # signals that take turns
_WITHIN = timedelta(seconds=10)  # of one tick


def follow_on(
    store: Store,
    delivery: str,
    *,
    clock: Callable[[], datetime],
    end: float,
    monotonic: Callable[[], float] = time.monotonic,
) -> Progress:
    """Reach accounts, a few a transaction. Raises Unfollowed when *monotonic* says *end* and somebody is left."""
    made: tuple[str, ...] = ()
    while True:
        try:
            done = store.write(partial(follow_next, delivery=delivery, now=clock()))
        except (CommitUnknown, Unavailable) as error:  # whoever goes on reads whom that transaction reached
            raise Unfollowed(delivery, made) from error
        made += done.revocations
        if not done.left:
            return replace(done, revocations=made)
        if monotonic() >= end:
            raise Unfollowed(delivery, made)


def follow_signals(
    store: Store, ring: Ring, *, clock: Callable[[], datetime], monotonic: Callable[[], float] = time.monotonic
) -> None:
    """Housekeeping: go on with the signals whose requests were cut short, a few accounts of each in turn.

    What cannot go on holds up nothing else. Raises ExceptionGroup, after the rest, of what could not.
    """
    end = monotonic() + _WITHIN.total_seconds()
    failures = Failures()
    while waiting := store.read(partial(unfollowed, besides=list(failures.of), limit=_BATCH)):
        for delivery in waiting:
            try:
                done = store.write(partial(follow_next, delivery=delivery, now=clock()))
            except Exception as failure:  # noqa: BLE001 - raised below: one signal's bug must not stop the others
                failures.add("delivery", delivery, failure)
            else:
                ring.revocations(done.revocations)
        if monotonic() >= end:
            break
    failures.tell("signals that could not reach everyone")
