"""Checks that connections to the ledger and Redis on other hosts are encrypted and authenticated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from sqlalchemy import Connection, text

from deploy.checkup.finding import Finding, Subject, ok, unknown, wrong
from deploy.environment import libpq
from deploy.installation import Installation
from deploy.ledger_tls import VERIFYING, Mode, other_hosts, said_mode
from identity.http.addresses import is_loopback

_VERIFY = "end ASWHOM_DATABASE_URL in ?sslmode=verify-full&sslrootcert=/path/to/its/authority.pem"
# https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-SSL-VIEW
_IS_ENCRYPTED = text("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
_IN_CLEAR = ("redis", "amqp")


def to_ledger(at: Installation) -> Iterator[Finding]:
    url = at.settings.ledger_url()
    if at.settings.on_sqlite or not (hosts := other_hosts(url, libpq())):
        return
    yield of_ledger(hosts, said_mode(url, libpq()), encrypted=at.read(is_encrypted))


def of_ledger(hosts: Sequence[str], mode: str | None, *, encrypted: bool) -> Finding:
    """Judge the configured *mode*, and whether the server reports encryption."""
    where = " and ".join(hosts)
    if not encrypted:
        read = f"what goes to the ledger at {where} is in clear text: who is on the network in between can do anything"
        if mode == Mode.DISABLE:
            return unknown(
                Subject.TLS, f"{read}, and sslmode=disable says that nobody else is. If somebody may be, {_VERIFY}"
            )
        return wrong(Subject.TLS, f"{read}. Have its server take TLS, and {_VERIFY}")
    if mode == Mode.VERIFY_CA:
        return unknown(
            Subject.TLS, f"sslmode=verify-ca takes any server whose certificate its authority made: {_VERIFY}"
        )
    if mode not in VERIFYING:
        said = f"encrypted, and with sslmode={mode} nobody verifies that it is {where} who answers"
        return unknown(Subject.TLS, f"{said}: who stands in between can do anything. To verify it, {_VERIFY}")
    return ok(Subject.TLS, f"the ledger at {where} proves who it is")


def is_encrypted(connection: Connection) -> bool:
    """True if the server reports that this connection is encrypted."""
    return bool(connection.execute(_IS_ENCRYPTED).scalar())


def to_redis(at: Installation) -> Iterator[Finding]:
    """Check Redis connections. Doorbells, locks and budgets grant no authority, but tampering costs time and calls."""
    given = {Subject.BROKER: at.settings.broker_url, Subject.LOCKS: at.settings.redis_url}
    for what, url in given.items():
        if url is not None and (hosts := in_clear(url.get_secret_value())):
            says = f"what goes to {' and '.join(hosts)} is in clear text, its password too: who is on the network in "
            says += "between can empty the queues, and loosen locks and budgets"
            yield unknown(what, f"{says}. Right where nobody else is; else take rediss:// or amqps://")


def in_clear(urls: str) -> list[str]:
    """Return the non-local hosts among a broker's URLs that are reached in clear text."""
    parts = [urlsplit(url) for url in urls.split(";")]
    hosts = [one.hostname for one in parts if one.scheme in _IN_CLEAR and one.hostname]
    return [host for host in hosts if not is_loopback(host)]
