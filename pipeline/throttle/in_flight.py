"""The calls of one process that are on their way, by host: one that does not answer gets no more than its share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

_SILENT = 2.0  # seconds after it was sent: of what was sent just now, or is not sent yet, no host says anything


@dataclass(eq=False, kw_only=True)
class Call:
    """One that is on its way, to a host for a tenant."""

    host: str
    tenant: str
    sent_at: float | None = None  # None: it is not on the wire yet, and waits for nobody but us


@dataclass(frozen=True, kw_only=True)
class Full:
    """There is no place for one more."""

    hangs: bool  # the host, as far as its silence tells; else they are many that have just begun


@dataclass(kw_only=True)
class _Calls:
    flying: set[Call] = field(default_factory=set)
    unanswered: set[Call] = field(default_factory=set)  # of those, begun since one was answered last
    lost: int = 0  # which were sent since then, too, and have ended without an answer

    def silent(self, now: float) -> int:
        return self.lost + sum(call.sent_at is not None and call.sent_at + _SILENT <= now for call in self.unanswered)


class InFlight:
    """A host may have *most* calls of a process's threads at once unless it answers meanwhile.

    A tenant may have half of them, once calls of its are silent: a first burst tells nothing, but it must not get all
    threads either. One for all threads, which are a process's own: this needs nobody else's word. *monotonic* is in
    seconds.
    """

    def __init__(self, most: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._of_one = max(most // 2, 1)
        self._monotonic = monotonic
        self._calls: dict[tuple[str, str | None], _Calls] = {}
        self._lock = threading.Lock()

    def enter(self, host: str, tenant: str) -> Call | Full:
        """Count one more, if it has a place."""
        call, now = Call(host=host, tenant=tenant), self._monotonic()
        with self._lock:
            of_all, of_one = (self._calls.get(key) or _Calls() for key in _keys(call))
            if min(len(of_one.flying), of_one.silent(now)) >= self._of_one:
                return Full(hangs=True)
            if min(len(of_all.flying), len(of_all.unanswered) + of_all.lost) >= self._most:
                return Full(hangs=of_all.silent(now) > 0)
            for key, calls in zip(_keys(call), (of_all, of_one), strict=True):
                self._calls[key] = calls
                calls.flying.add(call)
                calls.unanswered.add(call)
        return call

    def sent(self, call: Call) -> None:
        """It goes on the wire now: from here on, to wait for it is to wait for its host."""
        call.sent_at = self._monotonic()

    def leave(self, call: Call, *, sent: bool = True, answered: bool = False) -> None:
        """One has ended; *answered*: by a whole answer, whatever it said. Not *sent*, it tells nothing of the host."""
        with self._lock:
            for key in _keys(call):
                calls = self._calls[key]
                calls.flying.remove(call)
                if answered:
                    calls.unanswered.clear()
                    calls.lost = 0
                elif call in calls.unanswered:
                    calls.unanswered.remove(call)
                    calls.lost += sent
                if not calls.flying:
                    del self._calls[key]


def _keys(call: Call) -> tuple[tuple[str, str | None], tuple[str, str | None]]:
    """By which it counts: among all that go to its host, and among its tenant's."""
    return (call.host, None), (call.host, call.tenant)
