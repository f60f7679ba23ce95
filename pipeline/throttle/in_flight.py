"""A process's calls in flight by host; a host that does not answer gets no more than its share of threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

_SILENT = 2.0  # seconds after sending; a host's silence says nothing about a call sent later, or not yet


@dataclass(eq=False, kw_only=True)
class Slot:
    """A call in flight, to a host for a tenant."""

    host: str
    tenant: str
    sent_at: float | None = None  # None: not on the wire yet, so it does not wait for the host


@dataclass(frozen=True, kw_only=True)
class Full:
    """There is no place for another call."""

    hangs: bool  # True: the host is silent; False: many calls have just begun


@dataclass(kw_only=True)
class _Calls:
    flying: set[Slot] = field(default_factory=set)
    unanswered: set[Slot] = field(default_factory=set)  # those begun since the last answer
    lost: int = 0  # calls sent since then that ended without an answer

    def silent(self, now: float) -> int:
        return self.lost + sum(call.sent_at is not None and call.sent_at + _SILENT <= now for call in self.unanswered)


class InFlight:
    """Limits the calls to a host to *most* of a process's threads, unless the host answers in the meantime.

    A tenant may have half of them once its calls are silent: a first burst proves nothing, but it must not get all
    threads either. One instance serves all threads of a process and needs nothing outside it. *monotonic* is in
    seconds.
    """

    def __init__(self, most: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._of_one = max(most // 2, 1)
        self._monotonic = monotonic
        self._calls: dict[tuple[str, str | None], _Calls] = {}
        self._lock = threading.Lock()

    def enter(self, host: str, tenant: str) -> Slot | Full:
        """Register one more call, if there is a place for it."""
        call, now = Slot(host=host, tenant=tenant), self._monotonic()
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

    def sent(self, call: Slot) -> None:
        """Note that the call goes on the wire now: from here on it waits for its host."""
        call.sent_at = self._monotonic()

    def leave(self, call: Slot, *, sent: bool = True, answered: bool = False) -> None:
        """Note the end of a call.

        *answered*: by a whole answer, whatever it said. A call that was not *sent* says nothing about the host.
        """
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


def _keys(call: Slot) -> tuple[tuple[str, str | None], tuple[str, str | None]]:
    """The keys a call counts under: all calls to its host, and those of its tenant."""
    return (call.host, None), (call.host, call.tenant)
