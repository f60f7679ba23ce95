"""Checks a PostgreSQL ledger: durable commits, enough connections, and sound text indexes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, text

from deploy.checkup.finding import Finding, Subject, unknown, wrong
from deploy.installation import Installation
from deploy.ledger_connections import of_all_seen, of_one_host
from pipeline.ledger.running_processes import sessions_of_processes

_BESIDE = 17  # connections left for commands
_OLDEST = 150_000
_SETTINGS = (
    "fsync",
    "full_page_writes",
    "synchronous_commit",
    "synchronous_standby_names",
    "server_version_num",
    "server_version",
    "server_encoding",
    "max_connections",
    "superuser_reserved_connections",
    "reserved_connections",  # since PostgreSQL 16
)
_COLLATION = """
    select datname as name, datcollversion as of_indexes, pg_database_collation_actual_version(oid) as of_server
    from pg_database where datname = current_database()
"""
# https://www.postgresql.org/docs/current/runtime-config-replication.html#GUC-SYNCHRONOUS-STANDBY-NAMES
_COUNTED = re.compile(r"\s*(?:ANY\s+|FIRST\s+)?([0-9]+)\s*\(", re.IGNORECASE)
_NOT_AWAITED = ("off", "local")


def server(at: Installation) -> Iterator[Finding]:
    is_ = at.read(_settings)
    yield from _of_settings(is_)
    seen = of_all_seen(at.settings, at.read(sessions_of_processes))
    kept = int(is_["superuser_reserved_connections"]) + int(is_["reserved_connections"] or 0)
    yield from _of_connections(int(is_["max_connections"]), kept=kept, of_one=of_one_host(at.settings), seen=seen)
    if is_["synchronous_commit"] not in _NOT_AWAITED:
        yield from _of_standbys(is_["synchronous_standby_names"], at.read(_standbys))
    yield from _of_text(at.read(_text_kept), is_["server_encoding"])


def _of_settings(is_: Mapping[str, str]) -> Iterator[Finding]:
    for name in ("fsync", "full_page_writes"):
        if is_[name] != "on":
            yield wrong(
                Subject.DURABILITY,
                f"PostgreSQL's {name} is {is_[name]}, and a loss of power may lose the ledger: set it on",
            )
    if is_["synchronous_commit"] == "off":
        says = "PostgreSQL's synchronous_commit is off: it answers before a commit is kept; set it on for this database"
        yield wrong(Subject.DURABILITY, says)
    if int(is_["server_version_num"]) < _OLDEST:
        yield wrong(
            Subject.VERSIONS, f"PostgreSQL {is_['server_version']} is not tested with this version: use 15 or later"
        )


def _of_connections(takes: int, *, kept: int, of_one: int, seen: int) -> Iterator[Finding]:
    """Check `max_connections` (*takes*) against the need. *kept* are reserved for administrators.

    *of_one* is the maximum for one host of these settings, *seen* the maximum for the processes that are running.
    """
    needed = max(of_one, seen)
    if takes - kept >= needed:
        return
    whose = "the processes on all hosts" if seen > of_one else "the processes of these settings on one host"
    of_ours = f"PostgreSQL takes {takes} connections, of which it keeps {kept} for administrators"
    says = f"{of_ours}, and {whose} hold up to {needed}"
    cure = f"set max_connections to {needed + kept + _BESIDE} or more, or ASWHOM_DATABASE_CONNECTIONS to fewer"
    yield wrong(Subject.LEDGER, f"{says}, beyond which deliveries are answered 503: {cure}")


def _of_standbys(named: str, standbys: Sequence[str | None]) -> Iterator[Finding]:
    """Check `synchronous_standby_names` (*named*) against the states of the connected standbys."""
    if not named.strip():
        return  # one host is a valid choice; the documentation covers failovers that lose commits
    counted = _COUNTED.match(named)
    needed = int(counted[1]) if counted else 1
    if None in standbys:  # states are hidden from users without pg_monitor
        says = "PostgreSQL waits for standbys, which this user may not see: `grant pg_monitor` to it"
        yield unknown(Subject.DURABILITY, says)
        return
    awaited = sum(state != "async" for state in standbys)
    if awaited < needed:
        says = f"PostgreSQL waits for {needed} standby(s) and has {awaited}: every write hangs until one is back"
        yield wrong(Subject.DURABILITY, f"{says}, or until synchronous_standby_names asks for fewer")
    elif awaited == needed:
        says = f"PostgreSQL waits for {needed} standby(s) and has no other: the death of one stops every write"
        yield wrong(Subject.DURABILITY, f"{says}, while /readyz is green. Add one: `ANY {needed} (…)` of {needed + 1}")


def _standbys(connection: Connection) -> Sequence[str | None]:
    return connection.execute(text("select sync_state from pg_stat_replication")).scalars().all()


def _of_text(kept: Row[Any], encoding: str) -> Iterator[Finding]:
    if encoding != "UTF8":
        yield wrong(
            Subject.LEDGER, f"the database's encoding is {encoding}, in which names may fail: move it into one in UTF8"
        )
    if kept.of_indexes is not None and kept.of_indexes != kept.of_server:
        why = f"the indexes were made by collation version {kept.of_indexes}, and the server sorts by {kept.of_server}"
        cure = f'`reindex database "{kept.name}"`, then `alter database "{kept.name}" refresh collation version`'
        miss = "a look-up may miss what is there, a revocation too"
        yield wrong(Subject.LEDGER, f"{why}: {miss}. With every process stopped run {cure}")


def _text_kept(connection: Connection) -> Row[Any]:
    return connection.execute(text(_COLLATION)).one()


def _settings(connection: Connection) -> dict[str, str]:
    ask = text("select coalesce(current_setting(:name, true), '')")
    return {name: connection.execute(ask, {"name": name}).scalar_one() for name in _SETTINGS}
