"""Rings doorbells after the response: the sender has its 202 before the broker is contacted.

A response's bells are rung when the server closes it (PEP 3333: `close()` is called once the response was sent, or
could not be). At most one thread per process talks to the broker: a thread that finds another there leaves its bells in
the queue. A hanging broker therefore blocks one thread, not the server; the dispatcher rings what does not fit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from threading import Lock
from typing import NamedTuple

from werkzeug.wrappers import Response

from pipeline.model import Bell, Ring

WAITING = 1000


class _Due(NamedTuple):
    """The bells and revocation ids of one response."""

    bells: Sequence[Bell]
    revocations: Sequence[str]


class Bells:
    """Rings for committed work, one thread at a time."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._waiting: deque[_Due] = deque(maxlen=WAITING)
        self._ringing = Lock()

    def ring_after(self, response: Response, *, bells: Sequence[Bell] = (), revocations: Sequence[str] = ()) -> None:
        """Ring once *response* was sent: for due jobs by their *bells*, for *revocations* by their ids."""
        if bells or revocations:
            response.call_on_close(partial(self.ring_now, bells=bells, revocations=revocations))

    def ring_now(self, *, bells: Sequence[Bell] = (), revocations: Sequence[str] = ()) -> None:
        """Ring at once, for a caller that waits for the work to end; a hanging broker blocks that caller."""
        self._waiting.append(_Due(bells, revocations))
        while self._waiting:  # checked again after the release: another thread may have queued one in between
            if not self._ringing.acquire(blocking=False):
                return
            try:
                self._ring_all()
            finally:
                self._ringing.release()

    def _ring_all(self) -> None:
        bells: list[Bell] = []
        revocations: list[str] = []
        while self._waiting:
            due = self._waiting.popleft()
            bells.extend(due.bells)
            revocations.extend(due.revocations)
        if revocations:
            self._ring.revocations(revocations)
        if bells:
            self._ring.jobs(bells)
