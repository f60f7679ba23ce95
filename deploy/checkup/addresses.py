"""Checks stored and configured URLs against this installation's address policy, also before an upgrade."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from sqlalchemy import Connection, inspect, or_, select

from deploy.checkup.finding import Finding, Subject, wrong
from deploy.installation import Installation
from deploy.settings import Settings
from identity.agents.tables import api_keys, workloads
from identity.connections.secrets import WEBHOOK_SECRET
from identity.connections.self_hosted import is_own_value
from identity.http.addresses import AddressPolicy
from identity.providers import PROFILES
from identity.sql.columns import database_now
from identity.tables import connection_secrets, provider_connections, transmitters

_SHOWN = 20

# Connections with a live webhook secret: their chat commands are answered at the provider's reply URL.
_ANSWERING = select(connection_secrets.c.connection_id).where(
    connection_secrets.c.name == WEBHOOK_SECRET,
    or_(connection_secrets.c.retired_at.is_(None), connection_secrets.c.retired_at > database_now()),
)
_WORKLOADS = (
    select(workloads.c.key_id, workloads.c.jwks_url)
    .join(api_keys, api_keys.c.id == workloads.c.key_id)
    .where(
        api_keys.c.revoked_at.is_(None), or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > database_now())
    )
    .order_by(workloads.c.key_id)
)


class Leads(NamedTuple):
    """A URL that we connect to, and its owner. *answers* marks the provider's URL for replies to commands."""

    whose: str
    url: str
    answers: bool = False


def addresses(at: Installation) -> Iterator[Finding]:
    for says in refused(at.settings, at.read(stored)):
        yield wrong(Subject.ADDRESSES, says)


def refused(settings: Settings, in_ledger: Sequence[Leads]) -> list[str]:
    """Return a sentence for each URL refused by its form, with the setting that allows it.

    Hosts left out by ASWHOM_EGRESS_HOSTS are reported separately.
    """
    policy = settings.addresses()
    found = ((one.whose, _refused(policy, one.url)) for one in leading(settings, in_ledger))
    told = [f"{whose} leads to {says}" for whose, says in dict.fromkeys(found) if says is not None]
    more = [f"{len(told) - _SHOWN} more are refused"] if len(told) > _SHOWN else []
    return told[:_SHOWN] + more


def leading(settings: Settings, in_ledger: Sequence[Leads]) -> list[Leads]:
    """Return the ledger's URLs together with those from settings."""
    own = settings.console_issuer
    return [*in_ledger, *([] if own is None else [Leads("the console's sign-in", own)])]


def stored(connection: Connection) -> list[Leads]:
    """Return every URL in the ledger that this installation itself connects to, at whatever version the tables are.

    The authorization endpoint is not included, since only browsers open it.
    """
    ledger = inspect(connection)
    found: list[Leads] = []
    if ledger.has_table(provider_connections.name):
        c = provider_connections.c
        columns = select(c.id, c.provider, c.api_url, c.token_url, c.config).order_by(c.id)
        answering = set(connection.execute(_ANSWERING).scalars())
        for row in connection.execute(columns):
            config = [url for name, url in row.config.items() if name.endswith("_url") and not is_own_value(name)]
            urls = [row.api_url, row.token_url, *config]
            if (profile := PROFILES.get(row.provider)) is not None:
                urls += [profile.revocation_url, *profile.called_too]
                if profile.replies_at and row.id in answering:
                    found.append(Leads(row.id, profile.replies_at, answers=True))
            found += [Leads(row.id, url) for url in urls if url]
    removed = transmitters.c.removed_at
    if ledger.has_table(transmitters.name) and removed.name in {c["name"] for c in ledger.get_columns("transmitters")}:
        named = select(transmitters.c.id, transmitters.c.jwks_url).where(removed.is_(None)).order_by(transmitters.c.id)
        found += [Leads(f"transmitter {row.id}", row.jwks_url) for row in connection.execute(named)]
    if ledger.has_table(workloads.name):
        found += [Leads(f"key {row.key_id}", row.jwks_url) for row in connection.execute(_WORKLOADS)]
    return found


def is_refused(policy: AddressPolicy, url: str) -> bool:
    """True if the URL is refused by its form, or left out by ASWHOM_EGRESS_HOSTS."""
    parts = urlsplit(url)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    return policy.prohibits_url(parts.scheme, parts.hostname or "", port, userinfo=False) is not None


def entry_for(policy: AddressPolicy, url: str) -> str | None:
    """Return the ASWHOM_ALLOW_HOSTS entry that would allow *url*, or None if it needs none or none would help."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
    if parts.scheme not in ("http", "https") or policy.leaves_out(host, port) or not is_refused(policy, url):
        return None
    named = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"http://{named}" if parts.scheme == "http" else named


def _refused(policy: AddressPolicy, url: str) -> str | None:
    if (entry := entry_for(policy, url)) is None:
        return None
    parts = urlsplit(url)
    what = "unencrypted" if parts.scheme == "http" else "on the port of another service"
    return (
        f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}, {what}, so nothing is sent there: where that is as it "
        f"should be, add {entry} to ASWHOM_ALLOW_HOSTS, for every process"
    )
