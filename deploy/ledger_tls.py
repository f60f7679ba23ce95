"""Whether the ledger's PostgreSQL is another host, and what is said of TLS on the way to it.

libpq's own default, `prefer`, speaks in clear text to whoever answers that it has no TLS, and asks nobody for a
certificate. Whoever stands in between then reads the ledger and writes to it, which is everything: so it must be said.
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
_SOCKET = ("/", "@")  # what the name of a socket's folder, or of one without a file, begins with


def other_hosts(url: str, libpq: Mapping[str, str]) -> list[str]:
    """Of the URL's hosts, those that are neither this one nor a socket; where libpq's service says them, that.

    *libpq* is what the environment tells libpq, which counts where the URL is silent.
    """
    from sqlalchemy import make_url

    address = make_url(url)

    def said(name: str, variable: str) -> list[str]:
        given = address.query.get(name) or libpq.get(variable) or ()
        return ",".join([given] if isinstance(given, str) else given).split(",") if given else []

    reached = said("hostaddr", "PGHOSTADDR")  # goes before names, which certificates are compared with then
    named = [*address.host.split(","), *said("host", "")] if address.host else said("host", "PGHOST")
    hosts = [host.rpartition(":")[0] or host if host.count(":") == 1 else host for host in reached or named]
    if not hosts:
        hosts = [f"what libpq's service {name} names" for name in said("service", "PGSERVICE")]
    return [host for host in hosts if host and not host.startswith(_SOCKET) and not is_loopback(host)]


def said_mode(url: str, libpq: Mapping[str, str]) -> str | None:
    """The sslmode that the URL says, or the environment does; None: nobody."""
    from sqlalchemy import make_url

    said = make_url(url).query.get("sslmode")
    return (said if isinstance(said, str) or said is None else said[-1]) or libpq.get("PGSSLMODE") or None


def ledger_faults(url: str, libpq: Mapping[str, str]) -> Iterator[str]:
    """Each as a sentence that names the setting, what is wrong with it, and what to do. None on SQLite."""
    from sqlalchemy.exc import ArgumentError

    if not url.startswith("postgresql"):
        return
    try:
        hosts, mode = other_hosts(url, libpq), said_mode(url, libpq)
    except (ArgumentError, ValueError):  # their texts quote the URL
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
