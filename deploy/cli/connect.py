"""`connect`: links at which people connect their accounts, and the URLs those links may return to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import click
from sqlalchemy import Connection, select

from deploy.cli.command import YES, command, confirm, in_full, names
from deploy.cli.output import Output
from deploy.installation import Installation
from deploy.local_times import local_time
from identity.connect_sessions.tables import return_targets
from identity.model import AccountKey
from pipeline.desk import return_targets as targets
from pipeline.desk.tenants import add_user
from pipeline.views import operator_queries


@click.group()
def connect() -> None:
    """Links at which people connect their accounts, and where the last page leads."""


@command(connect)
@click.option("--tenant", required=True)
@click.option("--user", required=True, help="Their name or principal id. Created if new.")
@click.option("--connection", required=True, help="The id of a provider connection, or a provider.")
@click.option("--scopes", callback=names, help="Scopes to ask for: a,b,c.  [default: the connection's]")
@click.option("--return-to", metavar="URL", help="Where the last page leads. Must be a registered return URL.")
@click.option("--any-account", is_flag=True, help="Accept a different login at the provider than before.")
def link(
    at: Installation,
    out: Output,
    tenant: str,
    user: str,
    connection: str,
    scopes: tuple[str, ...] | None,
    return_to: str | None,
    any_account: bool,
) -> None:
    """Print a link at which a person connects an account. It works once, in one browser, for some minutes."""
    principal, now = in_full(tenant, user), at.now()
    owner = at.read(lambda c: operator_queries.fitting_connection(c, tenant, connection))
    ensure = partial(add_user, tenant=tenant, principal=principal, now=now)
    key = AccountKey(tenant=tenant, connection=owner.id, principal=principal)
    give_link(at, out, key, scopes=scopes, return_to=return_to, any_account=any_account, ensure=ensure)


def give_link(
    at: Installation,
    out: Output,
    key: AccountKey,
    *,
    scopes: tuple[str, ...] | None,
    return_to: str | None,
    any_account: bool,
    ensure: Callable[[Connection], object] | None = None,
    also: Mapping[str, Any] | None = None,
) -> None:
    """Make and print a connect link for the principal of *key*. *ensure* creates that principal if they are new.

    Raise BadInput, Misconfigured or PolicyDenied.
    """
    made = at.runtime.invitations.link(
        key,
        by=at.operator,
        scopes=scopes,
        return_to=return_to,
        any_account=any_account,
        ensure=ensure,
        now=at.now(),
    )
    document = {
        "url": made.url,
        "principal": key.principal,
        "connection": key.connection,
        "scopes": list(made.scopes),
        "return_to": return_to,
        "expires_at": made.expires_at,
    }
    sentence = f"{made.url}\nGive it to {key.principal} alone, until {local_time(made.expires_at)}."
    out.done(sentence, {**document, **(also or {})})


@command(connect, "add-return")
@click.argument("url")
@click.option("--tenant", help="Only for this tenant's people.  [default: every tenant's]")
def add_return(at: Installation, out: Output, url: str, tenant: str | None) -> None:
    """Allow the last connect page to lead to URL, which must match exactly."""
    id, act = at.ids("ret"), at.act()
    at.write(lambda c: targets.add(c, id, act, tenant=tenant, url=url))
    out.done(f"{id}: {url}, for {tenant or 'every tenant'}", {"id": id, "url": url, "tenant_id": tenant})


@command(connect)
def returns(at: Installation, out: Output) -> None:
    """List the URLs that the last connect page may lead to."""
    columns = (return_targets.c.id, return_targets.c.tenant_id, return_targets.c.url, return_targets.c.created_at)
    found = at.read(lambda c: c.execute(select(*columns).order_by(return_targets.c.url)).mappings().all())
    out.rows(
        [dict(row) for row in found],
        ("id", "tenant_id", "url", "created_at"),
        empty="The last page leads nowhere yet: `aswhom connect add-return URL`",
    )


@command(connect, "remove-return")
@click.argument("id")
@YES
def remove_return(at: Installation, out: Output, id: str, yes: bool) -> None:
    """Remove a return URL. Links already given out stop leading there as well."""
    confirm(f"Remove return URL {id}? Links already given out stop leading there as well.", yes=yes)
    act = at.act()
    at.write(lambda c: targets.remove(c, id, act))
    out.done(f"{id} is gone", {"id": id})
