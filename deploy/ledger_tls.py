"""Check that the way to a PostgreSQL on another host is explicitly encrypted, or explicitly not.

libpq's default, `prefer`, falls back to clear text if the server claims to have no TLS, and verifies no certificate. A
man in the middle could then read and write the whole ledger, so the mode has to be set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum

from identity.http.addresses import is_loopback


class Mode(StrEnum):
    """https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-PROTECTION"""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


VERIFYING = frozenset({Mode.VERIFY_CA, Mode.VERIFY_FULL})
_SOCKET = ("/", "@")  # prefixes of a socket's directory, and of an abstract socket


def other_hosts(url: str, libpq: Mapping[str, str]) -> list[str]:
    """Return the URL's hosts that are neither local nor a socket, or the libpq service that names them.

    *libpq* is libpq's environment, which applies where the URL says nothing.
    """
    from sqlalchemy import make_url

    address = make_url(url)

    def said(name: str, variable: str) -> list[str]:
        given = address.query.get(name) or libpq.get(variable) or ()
        return ",".join([given] if isinstance(given, str) else given).split(",") if given else []

    reached = said("hostaddr", "PGHOSTADDR")  # overrides the host names, which then only serve to check certificates
    named = [*address.host.split(","), *said("host", "")] if address.host else said("host", "PGHOST")
    hosts = [host.rpartition(":")[0] or host if host.count(":") == 1 else host for host in reached or named]
    if not hosts:
        hosts = [f"what libpq's service {name} names" for name in said("service", "PGSERVICE")]
    return [host for host in hosts if host and not host.startswith(_SOCKET) and not is_loopback(host)]


def said_mode(url: str, libpq: Mapping[str, str]) -> str | None:
    """Return the sslmode from the URL or the environment, or None."""
    from sqlalchemy import make_url

    said = make_url(url).query.get("sslmode")
    return (said if isinstance(said, str) or said is None else said[-1]) or libpq.get("PGSSLMODE") or None


def ledger_faults(url: str, libpq: Mapping[str, str]) -> Iterator[str]:
    """Yield each fault as a sentence with the setting, the problem and the remedy. Nothing on SQLite."""
    from sqlalchemy.exc import ArgumentError

    if not url.startswith("postgresql"):
        return
    try:
        hosts, mode = other_hosts(url, libpq), said_mode(url, libpq)
    except (ArgumentError, ValueError):  # their messages quote the URL
        yield "ASWHOM_DATABASE_URL: that is no URL: give sqlite:///path or postgresql://user@host/name"
        return
    if not hosts:
        return
    if mode is None:
        yield (
            f"ASWHOM_DATABASE_URL: {' and '.join(hosts)} is another host, or may be, and nothing here says whether the "
            "way to it is encrypted: end the URL in ?sslmode=verify-full&sslrootcert=/path/to/its/authority.pem (for a "
            "public authority /etc/ssl/certs/ca-certificates.crt), or in ?sslmode=disable where it is this machine or "
            "nobody else is on the network in between"
        )
    elif mode not in list(Mode):
        yield f"ASWHOM_DATABASE_URL: sslmode is one of {', '.join(Mode)}: take verify-full"
