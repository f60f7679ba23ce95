"""Maximum PostgreSQL connections of each process, by its kind or by the settings.

Each connection is a server process of some MB, and `max_connections` limits their number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from deploy.variables import Variables

_BESIDE_WRITES = 10  # in a worker: eight for reads, and two for urgent writes
_NEEDED = {"web": 16, "revocations": 10, "housekeeping": 12, "beat": 2}
#: The most a process can use: one per thread, and two for urgent writes.
_OF_USE = {"web": 34, "worker": 34, "revocations": 10, "housekeeping": 31, "beat": 2}
_WEB = 2  # the default number of web processes
_NAMED = re.compile(r"aswhom-(web|worker|revocations|housekeeping|beat)\b")


def most_connections(settings: Variables, process: str) -> int:
    """Return the maximum for one *process* by its name, such as `worker-2`."""
    kind = process.partition("-")[0]
    needed = _NEEDED.get(kind, settings.worker_writes + _BESIDE_WRITES)
    said = settings.database_connections
    return min(needed if said is None else said, _OF_USE[kind])


def of_one_host(settings: Variables) -> int:
    """Return the maximum for everything that these settings start on one host."""
    return of_these(settings, {kind: settings.workers if kind == "worker" else 1 for kind in _OF_USE})


def of_these(settings: Variables, started: Mapping[str, int]) -> int:
    """Return the maximum for *started* processes, counted by kind. One `web` consists of several processes."""
    return sum(number * _of_kind(settings, kind) for kind, number in started.items())


def of_all_seen(settings: Variables, sessions: Mapping[tuple[str, str | None], int]) -> int:
    """Return the maximum for the processes seen in *sessions*, which counts connections by name and address.

    More connections than one such process holds mean that several processes share a name and address.
    """
    return sum(max(_named(settings, name), there) for (name, _), there in sessions.items())


def _named(settings: Variables, name: str) -> int:
    named = _NAMED.match(name)
    return 0 if named is None else _of_kind(settings, named[1])


def _of_kind(settings: Variables, kind: str) -> int:
    processes = settings.web_processes or _WEB if kind == "web" else 1
    return processes * most_connections(settings, kind)
