"""Return targets: registered addresses to which the last page of a connect may lead.

They are compared character by character (RFC 9700 §4.1.3): patterns invite open redirectors.
"""

from __future__ import annotations

from datetime import datetime
from urllib.parse import urlsplit

from sqlalchemy import Connection, delete, insert, or_, select

from identity.connect_sessions.tables import return_targets
from identity.errors import BadInput
from identity.http.addresses import is_loopback


def checked_url(url: str) -> str:
    """Return *url* if it is a full http(s) address without credentials or fragment. Raises BadInput."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username is not None or "#" in url or not url.isprintable() or " " in url:
        raise BadInput(f"{url!r} cannot be returned to: give a whole https:// address, without a fragment")
    return url


def is_confidential(url: str) -> bool:
    """True if nobody on the way can read a request to *url*: it uses TLS or loopback."""
    parts = urlsplit(url)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")


def add_target(connection: Connection, *, id: str, tenant: str | None, url: str, now: datetime) -> bool:
    """Register *url*; with *tenant* None, for every tenant's people. False if it is registered already."""
    same = return_targets.c.tenant_id.is_(None) if tenant is None else return_targets.c.tenant_id == tenant
    if connection.execute(select(return_targets.c.id).where(same, return_targets.c.url == url)).first() is not None:
        return False
    connection.execute(insert(return_targets), {"id": id, "tenant_id": tenant, "url": url, "created_at": now})
    return True


def remove_target(connection: Connection, id: str) -> bool:
    """Remove a target, also for links already given out. False if there is none with that id."""
    return connection.execute(delete(return_targets).where(return_targets.c.id == id)).rowcount == 1


def may_return(connection: Connection, tenant: str, url: str) -> bool:
    """True if *url* is registered for the people of *tenant*."""
    whose = or_(return_targets.c.tenant_id == tenant, return_targets.c.tenant_id.is_(None))
    return connection.execute(select(return_targets.c.id).where(return_targets.c.url == url, whose)).first() is not None
