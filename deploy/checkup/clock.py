"""Compares this machine's clock with the database's, the broker's and the web's, and checks those of duty hosts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from redis.exceptions import RedisError

from deploy.checkup.finding import Finding, Subject, ok, wrong
from deploy.checkup.web import ready
from deploy.installation import Installation
from deploy.shared_redis import open_redis
from identity.http.client import Answer
from pipeline.ledger.clock import ledger_now
from pipeline.views import operator_queries

_LATELY = timedelta(minutes=1)  # duties send a heartbeat every few seconds
_OFF = timedelta(seconds=2)  # tolerance beside the time a query takes, and HTTP's whole seconds
_WAITED = timedelta(seconds=30)  # how long a heartbeat may wait to be written after reading the host's clock


def clock(at: Installation) -> Iterator[Finding]:
    """Compare clocks. Order comes from the ledger's counter, but token expiries and waits are times."""
    compared, apart = 0, []
    for whose, theirs, asked in _others(at):
        compared += 1
        behind, ahead = asked - theirs, theirs - at.now()
        if (off := max(behind, ahead)) > _OFF:
            way = "behind" if behind > ahead else "ahead of"
            apart.append(f"{whose} is {off.total_seconds():.0f} s {way} this machine's: keep both by NTP")
    for way, hosts in _hosts_apart(at).items():
        if hosts:
            apart.append(f"that of host {hosts[0]} is {way} the ledger's{_and_more(hosts)}: keep both by NTP")
    yield from (wrong(Subject.CLOCK, one) for one in apart)
    if not apart:
        yield ok(Subject.CLOCK, f"as {compared} others say" if compared else "there is no other to compare it with")


def _others(at: Installation) -> Iterator[tuple[str, datetime, datetime]]:
    """Yield each other clock's name, its time, and when it was asked. Unreachable ones are reported by other checks."""
    if not at.settings.on_sqlite:
        asked = at.now()
        yield "the database's clock", at.read(ledger_now), asked
    if (url := at.settings.redis()) is not None:
        client, asked = open_redis(url), at.now()
        with suppress(RedisError):
            seconds, micros = client.time()
            yield "the broker's clock", datetime.fromtimestamp(seconds + micros / 1e6, UTC), asked
        client.close()
    asked, answer = at.now(), ready(at)
    if isinstance(answer, Answer) and (said := answer.headers.get("date")):
        yield "the web's clock", parsedate_to_datetime(said) + timedelta(seconds=1), asked


def _hosts_apart(at: Installation) -> dict[str, list[str]]:
    """Return the duty hosts whose clocks were off at their last heartbeat, compared with the ledger's."""
    now, rows = at.read(lambda c: (ledger_now(c), operator_queries.all_heartbeats(c)))
    lately = [row for row in rows if row["host_at"] is not None and now - row["at"] < _LATELY]
    ahead = {row["host"] for row in lately if row["host_at"] - row["at"] > _OFF}
    behind = {row["host"] for row in lately if row["at"] - row["host_at"] > _WAITED}
    return {"ahead of": sorted(ahead), "behind": sorted(behind)}


def _and_more(hosts: list[str]) -> str:
    return f", and those of {len(hosts) - 1} more" if len(hosts) > 1 else ""
