"""The calls of one process that are on their way, by host: one that does not answer gets no more than its share."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field


@dataclass(frozen=True, eq=False, kw_only=True)
class Call:
    """One that is on its way, to a host for a tenant."""

    host: str
    tenant: str


@dataclass(kw_only=True)
class _Calls:
    flying: set[Call] = field(default_factory=set)
    unanswered: set[Call] = field(default_factory=set)  # begun since one was answered last


class InFlight:
    """A host may have *most* calls of a process's threads at once unless it answers meanwhile, half of them a tenant's.

    One for all threads, which are a process's own: this needs nobody else's word.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._of_one = max(most // 2, 1)
        self._calls: defaultdict[tuple[str, str | None], _Calls] = defaultdict(_Calls)
        self._lock = threading.Lock()

    def enter(self, host: str, tenant: str) -> Call | None:
        """Count one more. None: as many wait for the host, and it has answered none since they began."""
        with self._lock:
            for key, most in (((host, None), self._most), ((host, tenant), self._of_one)):
                calls = self._calls.get(key)
                if calls is not None and min(len(calls.flying), len(calls.unanswered)) >= most:
                    return None
            call = Call(host=host, tenant=tenant)
            for one in self._both(call):
                one.flying.add(call)
                one.unanswered.add(call)
            return call

    def leave(self, call: Call, *, sent: bool = True, answered: bool = False) -> None:
        """One has ended; *answered*: by a whole answer, whatever it said. Not *sent*, it tells nothing of the host."""
        with self._lock:
            for calls in self._both(call):
                calls.flying.remove(call)
                if answered:
                    calls.unanswered.clear()
                elif not sent:
                    calls.unanswered.discard(call)
            for key in ((call.host, None), (call.host, call.tenant)):
                if not self._calls[key].flying:
                    del self._calls[key]

    def _both(self, call: Call) -> tuple[_Calls, _Calls]:
        return self._calls[call.host, None], self._calls[call.host, call.tenant]
