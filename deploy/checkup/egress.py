"""Hosts that connections lead to, and that ASWHOM_EGRESS_HOSTS leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from deploy.checkup.addresses import leading, stored
from deploy.checkup.finding import Finding, ok, wrong
from deploy.installation import Installation
from identity.addresses import AddressPolicy
from identity.discovery import discover

_SHOWN = 20


def left_out(at: Installation) -> Iterator[Finding]:
    """They are refused, so that nobody's token goes there: whoever added one was mistaken, or somebody else."""
    policy = at.settings.addresses()
    found = ((whose, _left_out(policy, url)) for whose, url in leading(at.settings, at.read(stored)))
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


def _left_out(policy: AddressPolicy, url: str) -> str | None:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
    return host if policy.leaves_out(host, port) else None
