"""Finds hosts in use that ASWHOM_EGRESS_HOSTS leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from deploy.checkup.addresses import Leads, leading, stored
from deploy.checkup.finding import Finding, Subject, ok, unknown, wrong
from deploy.installation import Installation
from deploy.settings import Settings
from identity.connections.discovery import discover
from identity.http.addresses import AddressPolicy

_SHOWN = 20


def left_out(at: Installation) -> Iterator[Finding]:
    """Report hosts to which nothing is sent: somebody added them by mistake, or without permission."""
    in_ledger = at.read(stored)
    for says in hosts_left_out(at.settings, in_ledger):
        yield wrong(Subject.EGRESS, says)
    policy = at.settings.addresses()
    for one in leading(at.settings, in_ledger):
        if one.answers and (host := _left_out(policy, one.url)) is not None:
            says = f"{one.whose}'s provider takes answers to commands and buttons at {host}, which ASWHOM_EGRESS_HOSTS"
            yield unknown(Subject.EGRESS, f"{says} leaves out: if anybody uses such there, add it, for every process")


def hosts_left_out(settings: Settings, in_ledger: Sequence[Leads]) -> list[str]:
    """Return a sentence for each left-out host, with the remedy. Reply URLs are omitted, since they may be unused."""
    policy = settings.addresses()
    found = ((one.whose, _left_out(policy, one.url)) for one in leading(settings, in_ledger) if not one.answers)
    told = list(dict.fromkeys((whose, host) for whose, host in found if host is not None))
    more = [f"{len(told) - _SHOWN} more are left out"] if len(told) > _SHOWN else []
    return [
        f"{whose} leads to {host}, which ASWHOM_EGRESS_HOSTS leaves out, so nothing is sent there: where it should be, "
        f"add {host}, for every process, and else correct {whose}"
        for whose, host in told[:_SHOWN]
    ] + more


def sign_in(at: Installation) -> Iterator[Finding]:
    """Ask the issuer which other hosts sign-in leads to. Raise Misconfigured for one that is left out."""
    if at.settings.console_issuer is not None:
        discover(at.http, at.settings.console_issuer)
        yield ok(Subject.SIGN_IN, f"{at.settings.console_issuer} says where it is, and nothing of that is left out")


def _left_out(policy: AddressPolicy, url: str) -> str | None:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
    return host if policy.leaves_out(host, port) else None
