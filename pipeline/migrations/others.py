"""Whether processes of ours run on a ledger whose tables are to change: an old version may do wrong on new ones.

PostgreSQL names its sessions, which a process has for as long as it lives, or longer: a COMMIT that waits for a standby
outlives whoever asked for it. Elsewhere, and where a session bears a name of somebody's own, heartbeats tell.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime

from sqlalchemy import Connection, inspect, select, text

from identity.errors import Unavailable
from identity.store import Store
from pipeline.ledger.clock import clock
from pipeline.model import HEARTBEAT
from pipeline.tables import heartbeats

_SILENT = 3 * HEARTBEAT  # then whoever wrote it is gone
_LOOKS_AGAIN = 0.5  # seconds

#: The names that `deploy.environment` gives to the connections of processes; commands end by themselves.
_SESSIONS = text(
    "select application_name from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() "
    "and application_name ~ '^aswhom-(web|worker|revocations|housekeeping|beat)'"
)

_Beats = Mapping[tuple[str, str], datetime]


def refuse_beside_others(store: Store, *, tell: Callable[[str], None]) -> None:
    """Return once nothing of ours is seen on the ledger. Raises Unavailable for what runs there.

    Of a process that was stopped just now the last heartbeat is still fresh: that it stays the last is waited for.
    """
    sessions, known = store.read(_seen)
    _refuse(sessions)
    pause, fresh = threading.Event(), known
    if fresh:
        tell(f"seeing whether what wrote a heartbeat just now has stopped, for {_SILENT.total_seconds():.0f} s at most")
    while fresh:
        pause.wait(_LOOKS_AGAIN)
        sessions, fresh = store.read(_seen)
        _refuse(sessions)  # a web process writes no heartbeat, and may have been started meanwhile
        if hosts := {host for (duty, host), at in fresh.items() if known.get((duty, host)) != at}:
            raise _refusal(f"heartbeats come from {', '.join(sorted(hosts))}")


def _refuse(sessions: Counter[str]) -> None:
    if sessions:
        raise _refusal(", ".join(f"{name} ({number} sessions)" for name, number in sorted(sessions.items())))


def _refusal(what: str) -> Unavailable:
    return Unavailable(
        f"the ledger's tables are to change, and processes run on it: {what}. Nothing was changed. Stop every process "
        "on every host first, and then repeat it; `--while-others-run` changes them all the same"
    )


def _seen(connection: Connection) -> tuple[Counter[str], _Beats]:
    """Our sessions by their names, and the heartbeats that are fresh."""
    sessions = Counter[str]()
    if connection.dialect.name == "postgresql":
        sessions.update(connection.execute(_SESSIONS).scalars())
    if not inspect(connection).has_table(heartbeats.name):
        return sessions, {}
    columns = heartbeats.c
    beats = select(columns.duty, columns.host, columns.at).where(columns.at > clock(connection) - _SILENT)
    return sessions, {(duty, host): at for duty, host, at in connection.execute(beats)}
