"""Retry of a write that must not be lost and is safe to repeat, while the ledger is unavailable."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from sqlalchemy import Connection

from identity.backoff import scattered
from identity.errors import Unavailable
from identity.sql.store import CommitUnknown, Store

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PersistentWrite:
    """The limits of the retries."""

    within: timedelta = timedelta(seconds=30)
    pause: timedelta = timedelta(milliseconds=100)  # after the first try; it doubles
    longest_pause: timedelta = timedelta(seconds=2)
    gives_up: Callable[[], bool] = lambda: False  # ends the retries early: asked after each try
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def write(self, store: Store, fn: Callable[[Connection], T], *, what: str, where: Mapping[str, str]) -> T:
        """Return the result of *fn*, which must find by its own key what an earlier run committed.

        *what* describes the data in the log, with *where*'s fields. Raises Unavailable.
        """
        end = self.monotonic() + self.within.total_seconds()
        pause = self.pause
        tried = False
        while True:
            try:
                return store.write(fn)
            except (Unavailable, CommitUnknown) as error:
                over = self.monotonic() >= end or self.gives_up()
                if over or not tried:  # a full disk fails at once in every thread: log the first failure and the last
                    log.exception("%s is not stored yet", what, extra=dict(where))
                if over:
                    raise Unavailable(f"{what} could not be stored") from error
            tried = True
            self.sleep(scattered(pause).total_seconds())
            pause = min(pause * 2, self.longest_pause)
