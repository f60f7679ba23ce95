"""How many connections to PostgreSQL each process of ours holds at most, by what it does or by the settings.

Each is a process of the server's own, of some MB, and there are as many as its `max_connections` and no more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from deploy.variables import Variables

_BESIDE_WRITES = 10  # in a worker: eight that read, and two for what goes ahead of the writes
_NEEDED = {"web": 16, "revocations": 10, "housekeeping": 12, "beat": 2}
#: As many as have a use for one: threads, and two for what goes ahead.
_OF_USE = {"web": 34, "worker": 34, "revocations": 10, "housekeeping": 31, "beat": 2}
_WEB = 2  # processes of it, unless the settings say so
_NAMED = re.compile(r"aswhom-(web|worker|revocations|housekeeping|beat)\b")


def most_connections(settings: Variables, process: str) -> int:
    """Of one *process* by its name, `worker-2` say."""
    kind = process.partition("-")[0]
    needed = _NEEDED.get(kind, settings.worker_writes + _BESIDE_WRITES)
    said = settings.database_connections
    return min(needed if said is None else said, _OF_USE[kind])


def of_one_host(settings: Variables) -> int:
    """Of all that these settings start on one host."""
    return of_these(settings, {kind: settings.workers if kind == "worker" else 1 for kind in _OF_USE})


def of_these(settings: Variables, started: Mapping[str, int]) -> int:
    """Of so many of each kind as are *started*; a `web` is several processes by itself."""
    return sum(number * _of_kind(settings, kind) for kind, number in started.items())


def of_all_seen(settings: Variables, sessions: Mapping[tuple[str, str | None], int]) -> int:
    """Of the processes whose *sessions* are there: how many of each name and address.

    Where there are more of them than one such process holds, several go by one name there.
    """
    return sum(max(_named(settings, name), there) for (name, _), there in sessions.items())


def _named(settings: Variables, name: str) -> int:
    named = _NAMED.match(name)
    return 0 if named is None else _of_kind(settings, named[1])


def _of_kind(settings: Variables, kind: str) -> int:
    processes = settings.web_processes or _WEB if kind == "web" else 1
    return processes * most_connections(settings, kind)
