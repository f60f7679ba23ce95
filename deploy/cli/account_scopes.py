"""`accounts scopes`: the scopes accounts were granted, beside the ones that were used."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from itertools import islice

import click

from deploy.cli.accounts import accounts
from deploy.cli.command import MANY, command
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.model import PrincipalKind
from pipeline.accounts.scope_report import scope_report, what_to_do
from pipeline.views import operator_queries


@command(accounts, "scopes")
@click.option("--tenant")
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, 90), help="How far back to look for use.")
@click.option("--broad", is_flag=True, help="Only service credentials that have more access than needed.")
@MANY
def scopes(at: Installation, out: Output, tenant: str | None, days: int, broad: bool, limit: int) -> None:
    """List each active account's granted scopes, those used lately, and those that no enabled workflow needs."""
    now = at.now()
    since = now - timedelta(days=days)
    if tenant is not None:
        at.read(lambda c: operator_queries.tenant(c, tenant))
    kind = PrincipalKind.SERVICE if broad else None
    every = scope_report(at, at.workflows, tenant=tenant, since=since, now=now, kind=kind)
    found = list(islice((one for one in every if one.broad or not broad), limit + 1))
    rows = [{**asdict(one), "broad": one.broad} for one in found]
    columns = ("account", "tenant", "principal", "provider", "granted", "used", "unused", "idle", "broad")
    out.page(rows, columns, limit=limit, empty="No such account is active")
    for one in found[:limit] if not out.as_json else ():
        if one.broad:
            out.sentence(f"{one.account}: {what_to_do(one)}")
