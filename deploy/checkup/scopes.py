"""Services' credentials that reach further than they have to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from deploy.checkup.finding import Finding, unknown
from deploy.cli.account_scopes import what_to_do
from deploy.installation import Installation
from pipeline.scope_report import scope_report

_LATELY = timedelta(days=30)
_SHOWN = 20  # by name; how many more there are is said


def scopes(at: Installation) -> Iterator[Finding]:
    """A service's credential that reaches too far puts all of its tenant at risk; it is no fault that stops work."""
    now = at.now()
    report = at.read(lambda c: scope_report(c, at.workflows, tenant=None, since=now - _LATELY, now=now))
    broad = [one for one in report if one.broad]
    for one in broad[:_SHOWN]:
        yield unknown("scopes", f"{one.account} ({one.principal} at {one.provider}): {what_to_do(one)}")
    if len(broad) > _SHOWN:
        yield unknown("scopes", f"{len(broad) - _SHOWN} more reach too far: see `aswhom accounts scopes --broad`")
