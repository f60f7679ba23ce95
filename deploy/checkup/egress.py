"""Hosts that connections lead to, and that ASWHOM_EGRESS_HOSTS leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from sqlalchemy import select

from deploy.checkup.finding import Finding, ok, wrong
from deploy.installation import Installation
from identity.addresses import AddressPolicy
from identity.api_key_tables import api_keys, workloads
from identity.connection_secrets import WEBHOOK_SECRET
from identity.discovery import discover
from identity.own_values import is_own_value
from identity.providers import PROFILES
from pipeline.ledger import queries
from pipeline.ledger.paging import Record

_SHOWN = 20
_WORKLOADS = (
    select(workloads.c.key_id, workloads.c.jwks_url)
    .join(api_keys, api_keys.c.id == workloads.c.key_id)
    .where(api_keys.c.revoked_at.is_(None))
)


def left_out(at: Installation) -> Iterator[Finding]:
    """They are refused, so that nobody's token goes there: whoever added one was mistaken, or somebody else."""
    policy = at.settings.addresses()
    leading = {row["id"]: _addresses(row) for row in at.read(queries.all_connections)}
    leading |= {f"transmitter {row['id']}": [row["jwks_url"]] for row in at.read(queries.all_transmitters)}
    leading |= {f"key {row.key_id}": [row.jwks_url] for row in at.read(lambda c: c.execute(_WORKLOADS).all())}
    if at.settings.console_issuer is not None:
        leading["the console's sign-in"] = [at.settings.console_issuer]
    found = ((whose, _left_out(policy, url)) for whose, urls in leading.items() for url in urls)
    told = list(dict.fromkeys((whose, host) for whose, host in found if host is not None))
    for whose, host in told[:_SHOWN]:
        says = f"{whose} leads to {host}, which ASWHOM_EGRESS_HOSTS leaves out, so nothing is sent there"
        yield wrong("egress", f"{says}: add it there, for every process, or find out who changed the connection")
    if len(told) > _SHOWN:
        yield wrong("egress", f"{len(told) - _SHOWN} more are left out")


def sign_in(at: Installation) -> Iterator[Finding]:
    """The issuer says where else people's sign-in leads, so it is asked. Raises Misconfigured for what is left out."""
    if at.settings.console_issuer is not None:
        discover(at.http, at.settings.console_issuer)
        yield ok("sign-in", f"{at.settings.console_issuer} says where it is, and nothing of that is left out")


def _addresses(row: Record) -> list[str]:
    """Where this installation itself connects to: browsers alone open the authorization endpoint."""
    profile = PROFILES.get(row["provider"])
    config = [url for name, url in row["config"].items() if name.endswith("_url") and not is_own_value(name)]
    urls = [row["api_url"], row["token_url"], *config]
    if profile is not None:
        urls += [profile.revocation_url, *profile.called_too]
        urls += [profile.replies_at] if WEBHOOK_SECRET in row["secrets"] else []
    return [url for url in urls if url]


def _left_out(policy: AddressPolicy, url: str) -> str | None:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
    return host if policy.leaves_out(host, port) else None
