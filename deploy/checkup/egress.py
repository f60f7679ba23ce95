"""Hosts that connections lead to, and that ASWHOM_EGRESS_HOSTS leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from deploy.checkup.finding import Finding, wrong
from deploy.installation import Installation
from identity.addresses import AddressPolicy
from identity.own_values import is_own_value
from identity.providers import PROFILES
from pipeline.ledger import queries
from pipeline.ledger.paging import Record

_SHOWN = 20


def left_out(at: Installation) -> Iterator[Finding]:
    """They are refused, so that nobody's token goes there: whoever added one was mistaken, or somebody else."""
    policy = at.settings.addresses()
    leading = {row["id"]: _addresses(row) for row in at.read(queries.all_connections)}
    leading |= {f"transmitter {row['id']}": [row["jwks_url"]] for row in at.read(queries.all_transmitters)}
    if at.settings.console_issuer is not None:
        leading["the console's sign-in"] = [at.settings.console_issuer]
    found = ((whose, _left_out(policy, url)) for whose, urls in leading.items() for url in urls)
    told = list(dict.fromkeys((whose, host) for whose, host in found if host is not None))
    for whose, host in told[:_SHOWN]:
        says = f"{whose} leads to {host}, which ASWHOM_EGRESS_HOSTS leaves out, so nothing is sent there"
        yield wrong("egress", f"{says}: add it there, for every process, or find out who changed the connection")
    if len(told) > _SHOWN:
        yield wrong("egress", f"{len(told) - _SHOWN} more are left out")


def _addresses(row: Record) -> list[str]:
    """Where this installation itself connects to: browsers alone open the authorization endpoint."""
    profile = PROFILES.get(row["provider"])
    config = [url for name, url in row["config"].items() if name.endswith("_url") and not is_own_value(name)]
    return [
        url for url in (row["api_url"], row["token_url"], *config, profile.revocation_url if profile else "") if url
    ]


def _left_out(policy: AddressPolicy, url: str) -> str | None:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
    return host if policy.leaves_out(host, port) else None
